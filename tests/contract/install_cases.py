"""The install targets under contract, and references that show what the contract means.

A case knows how to start a server with one site on it. A new kind of server
adds a ``Case`` to :data:`CASES`; the promises are in ``test_install_target.py``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from certrail.connectors import InstallTarget, Traits
from certrail.errors import ActivationRefused, Conflict
from certrail.model import Bundle, Fingerprint, Site, Staged
from certrail.private_key import PrivateKeyPem
from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.servers.versions import Versions, version_of
from certrail.x509.chain import must_be_installable
from tests.support.apache import Apache
from tests.support.caddyfile import fresh_caddy
from tests.support.databases import fresh_mariadb, fresh_postgres
from tests.support.exim import Exim
from tests.support.haproxy import Haproxy
from tests.support.lighttpd import Lighttpd
from tests.support.mail import Dovecot, Postfix
from tests.support.nginx import ONE_SITE, Nginx, TestCa
from tests.support.tomcat import fresh_tomcat

SITE = "www.example.test"
GAPS = frozenset({"key files", "connections"})
"""What a case may lack: keys that can be seen as files, connections that live long."""
OTHER_GAPS = frozenset({"own key"})
"""What a case may lack for a reason of its own: keys of ours, where the target makes them."""


class World(ABC):
    """A running server with one TLS site, :data:`SITE`, that serves :attr:`old`.

    Attributes:
        site: as the target names it.
        old: what is served at the start.
        port: where clients connect; 0 for what other programs serve from.
        starttls: what they say before, "" for TLS at once.
        server: the mapping of an endpoint, for servers on a machine.
    """

    site: Site
    old: Fingerprint
    ca: TestCa
    server: Mapping[str, object]
    port: int = 0
    starttls: str = ""

    @abstractmethod
    def open(self) -> InstallTarget:
        """Return the target anew, as another process would."""

    @abstractmethod
    def served(self) -> Fingerprint:
        """Return what a client sees in a handshake now."""

    @abstractmethod
    def snapshot(self) -> dict[str, bytes]:
        """Return everything that is stored on the other side."""

    @abstractmethod
    def refuse(self, staged: Staged) -> AbstractContextManager[object]:
        """Make the server refuse *staged* while the context lasts."""

    def key_modes(self) -> list[int]:
        """Return the permission bits of the key files that the target wrote."""
        raise AssertionError("declare that key files are lacking")

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a connection; the value says whether it is still good at its end."""
        raise AssertionError("declare that connections are lacking")

    def bundle(self) -> Bundle:
        """Return a fresh certificate for the site."""
        return self.ca.bundle(SITE)

    def two(self) -> tuple[tuple[Site, Bundle], tuple[Site, Bundle]]:
        """Return what two requests are to install at once: both want the same place."""
        return (self.site, self.bundle()), (self.site, self.bundle())


@dataclass(frozen=True)
class Case:
    """A target under contract; *kind* is that of the registry, "" for a reference."""

    name: str
    kind: str
    world: Callable[[Path], AbstractContextManager[World]]
    lacks: frozenset[str] = frozenset()


class NginxWorld(World):
    """A real nginx on this machine."""

    def __init__(self, nginx: Nginx) -> None:
        self._nginx = nginx
        self.port = nginx.port
        self.server = {**nginx.server, "site": SITE}
        self.ca = nginx.ca
        self.site = site_of(self.server)
        self.old = nginx.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return open_target(LocalHost("here"), self.server)

    def served(self) -> Fingerprint:
        return self._nginx.served(SITE)

    def snapshot(self) -> dict[str, bytes]:
        return files_below(self._nginx.directory)

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        key = Path(staged.data["directory"], "versions", staged.data["version"], "privkey.pem")
        good = key.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        key.write_bytes(other.reveal())
        yield
        key.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = (self._nginx.directory / "certrail").rglob("privkey.pem")
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._nginx.download(SITE)


class HaproxyWorld(World):
    """A real HAProxy on this machine."""

    def __init__(self, haproxy: Haproxy) -> None:
        self._haproxy = haproxy
        self.port = haproxy.port
        self.server = {**haproxy.server, "site": SITE}
        self.ca = haproxy.ca
        self.site = site_of(self.server)
        self.old = haproxy.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return open_target(LocalHost("here"), self.server)

    def served(self) -> Fingerprint:
        return self._haproxy.served(SITE)

    def snapshot(self) -> dict[str, bytes]:
        return files_below(self._haproxy.directory)

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        pem = Path(staged.data["directory"], "versions", staged.data["version"], "combined.pem")
        good = pem.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        pem.write_bytes(staged_chain(good) + other.reveal())
        yield
        pem.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = (self._haproxy.directory / "certrail").rglob("combined.pem")
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._haproxy.download(SITE)


class ApacheWorld(World):
    """A real Apache on this machine."""

    def __init__(self, apache: Apache) -> None:
        self._apache = apache
        self.port = apache.port
        self.server = {**apache.server, "site": SITE}
        self.ca = apache.ca
        self.site = site_of(self.server)
        self.old = apache.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return open_target(LocalHost("here"), self.server)

    def served(self) -> Fingerprint:
        return self._apache.served(SITE)

    def snapshot(self) -> dict[str, bytes]:
        return files_below(self._apache.directory)

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        # A key that does not fit would pass its test and end it; one that cannot be read does not.
        key = Path(staged.data["directory"], "versions", staged.data["version"], "privkey.pem")
        good = key.read_bytes()
        key.unlink()
        yield
        key.write_bytes(good)
        key.chmod(0o600)

    def key_modes(self) -> list[int]:
        found = (self._apache.directory / "certrail").rglob("privkey.pem")
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._apache.download(SITE)


@runtime_checkable
class Connects(Protocol):
    """A server that lets connections live while it changes its certificate."""

    def connection(self) -> AbstractContextManager[Callable[[], bool]]: ...


class Served(Protocol):
    """A server whose settings name a certificate, as tests start it."""

    ca: TestCa
    old: Bundle
    port: int

    @property
    def server(self) -> dict[str, object]: ...

    def served(self) -> Fingerprint: ...


class SettingsWorld(World):
    """A real server on this machine; *keys* is the name of the files with its keys."""

    def __init__(self, real: Served, keys: str, starttls: str = "") -> None:
        self._real = real
        self.port = real.port
        self.starttls = starttls
        self._keys = keys
        self.server = {**real.server, "site": SITE}
        self._config = Path(str(real.server["config"]))
        self._kept = self._config.parent / "certrail"
        self.ca = real.ca
        self.site = site_of(self.server)
        self.old = real.old.chain.fingerprint

    def open(self) -> InstallTarget:
        return open_target(LocalHost("here"), self.server)

    def served(self) -> Fingerprint:
        return self._real.served()

    def snapshot(self) -> dict[str, bytes]:
        files = self._config.glob("*.cf") if self._config.is_dir() else [self._config]
        found = [*files, *self._kept.rglob("*")]
        return {
            str(path): path.readlink().as_posix().encode()
            if path.is_symlink()
            else path.read_bytes()
            for path in found
            if path.is_symlink() or path.is_file()
        }

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        # It would take over a pair that does not fit, and break every handshake.
        key = Path(staged.data["directory"], "versions", staged.data["version"], self._keys)
        good = key.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        chain = good[good.find(b"-----BEGIN CERT") :] if b"BEGIN CERT" in good else b""
        key.write_bytes(other.reveal() + chain)
        yield
        key.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = self._kept.rglob(self._keys)
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        assert isinstance(self._real, Connects), "declare that connections are lacking"
        return self._real.connection()


# nginx -s returns at once; a reload command is done when the old workers take no more clients.
_RELOAD = """\
master=$1; shift
old=$(pgrep -P "$master")
"$@" -s reload || exit 1
for _ in $(seq 200); do
  busy=no
  for pid in $old; do
    grep -aq 'shutting down' "/proc/$pid/cmdline" 2>/dev/null && continue
    [ -e "/proc/$pid/cmdline" ] && busy=yes
  done
  [ $busy = no ] && exit 0
  sleep 0.05
done
exit 1
"""


class CommandWorld(World):
    """A server known by its files and commands: nginx again, but nobody reads its configuration."""

    def __init__(self, nginx: Nginx, old: Bundle) -> None:
        self._nginx = nginx
        self.port = nginx.port
        argv = ["nginx", "-p", f"{nginx.directory}/", "-c", str(nginx.config)]
        self.server = {
            "kind": "command",
            "site": SITE,
            "directory": str(nginx.directory / "kept"),
            "test": [*argv, "-t"],
            "reload": ["sh", str(nginx.write("reload.sh", _RELOAD)), str(nginx.master), *argv],
        }
        self.ca = nginx.ca
        self.site = site_of(self.server)
        self.old = old.chain.fingerprint

    def open(self) -> InstallTarget:
        return open_target(LocalHost("here"), self.server)

    def served(self) -> Fingerprint:
        return self._nginx.served(SITE)

    def snapshot(self) -> dict[str, bytes]:
        return files_below(self._nginx.directory)

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        directory = Path(str(staged.data["directory"]))
        key = directory / "versions" / version_of(staged.fingerprint) / "privkey.pem"
        good = key.read_bytes()
        other = self.ca.bundle(SITE).key
        assert other is not None
        key.write_bytes(other.reveal())
        yield
        key.write_bytes(good)

    def key_modes(self) -> list[int]:
        found = (self._nginx.directory / "kept").rglob("privkey.pem")
        return [path.stat().st_mode & 0o7777 for path in found]

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        return self._nginx.download(SITE)


def staged_chain(combined: bytes) -> bytes:
    """Return the certificates of a file that holds the key as well."""
    return combined.partition(b"-----BEGIN PRIVATE KEY-----")[0]


def files_below(directory: Path) -> dict[str, bytes]:
    """Return configuration and certificates; not what a server writes while it runs."""
    own = {"error.log", "output.log", "nginx.pid", "haproxy.pid", "apache2.pid", "slow"}
    return {
        str(path.relative_to(directory)): path.readlink().as_posix().encode()
        if path.is_symlink()
        else path.read_bytes()
        for path in directory.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name not in own
    }


@contextmanager
def _nginx(directory: Path) -> Iterator[World]:
    with Nginx.started(directory) as nginx:
        yield NginxWorld(nginx)


@contextmanager
def _apache(directory: Path) -> Iterator[World]:
    with Apache.started(directory) as apache:
        yield ApacheWorld(apache)


@contextmanager
def _haproxy(directory: Path) -> Iterator[World]:
    with Haproxy.started(directory) as haproxy:
        yield HaproxyWorld(haproxy)


@contextmanager
def _command(directory: Path) -> Iterator[World]:
    ca = TestCa()
    old = ca.bundle(SITE)
    versions = Versions(LocalHost("here"), str(directory / "kept" / SITE))
    versions.switch(versions.target(versions.stage(old)))
    servers = ONE_SITE.replace("@dir@/old.pem", versions.live_chain)
    servers = servers.replace("@dir@/old.key", versions.live_key)
    with Nginx.started(directory, servers=servers, ca=ca) as nginx:
        yield CommandWorld(nginx, old)


@contextmanager
def _postfix(directory: Path) -> Iterator[World]:
    with Postfix.started() as postfix:
        yield SettingsWorld(postfix, "combined.pem", "smtp")


@contextmanager
def _dovecot(directory: Path) -> Iterator[World]:
    with Dovecot.started() as dovecot:
        yield SettingsWorld(dovecot, "privkey.pem", "imap")


@contextmanager
def _lighttpd(directory: Path) -> Iterator[World]:
    with Lighttpd.started(directory) as lighttpd:
        yield SettingsWorld(lighttpd, "combined.pem")


@contextmanager
def _mariadb(directory: Path) -> Iterator[World]:
    yield SettingsWorld(fresh_mariadb(), "privkey.pem", "mysql")


@contextmanager
def _postgresql(directory: Path) -> Iterator[World]:
    yield SettingsWorld(fresh_postgres(), "privkey.pem", "postgres")


@contextmanager
def _caddy(directory: Path) -> Iterator[World]:
    yield SettingsWorld(fresh_caddy(), "privkey.pem")


@contextmanager
def _exim(directory: Path) -> Iterator[World]:
    with Exim.started() as exim:
        yield SettingsWorld(exim, "combined.pem", "smtp")


@contextmanager
def _tomcat(directory: Path) -> Iterator[World]:
    yield SettingsWorld(fresh_tomcat(), "privkey.pem")


CASES = (
    Case("apache", "apache", _apache),
    Case("postfix", "postfix", _postfix),
    Case("dovecot", "dovecot", _dovecot),
    Case("lighttpd", "lighttpd", _lighttpd),
    Case("caddyfile", "caddy", _caddy),
    Case("exim", "exim", _exim),
    Case("mariadb", "mariadb", _mariadb),
    Case("postgresql", "postgresql", _postgresql),
    Case("tomcat", "tomcat", _tomcat),
    Case("nginx", "nginx", _nginx),
    Case("haproxy", "haproxy", _haproxy),
    Case("command", "command", _command),
)


@dataclass
class Memory:
    """What a server made of variables stores and serves."""

    store: dict[str, Bundle] = field(default_factory=dict)
    live: list[Fingerprint] = field(default_factory=list)
    refused: set[Fingerprint] = field(default_factory=set)
    reloads: int = 0


class Reference(InstallTarget):
    """The least that keeps every promise; the broken ones below differ in one method."""

    traits = Traits(serves=False)

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def check(self) -> str:
        return "reference"

    def sites(self) -> Iterator[Site]:
        yield Site(SITE, (SITE,), tls=True, fingerprint=self.memory.live[-1])

    def serving(self, site: Site) -> Fingerprint | None:
        return self.memory.live[-1]

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_be_installable(bundle)
        if replaces not in (None, self.memory.live[-1], bundle.chain.fingerprint):
            raise Conflict("somebody else was here")
        fingerprint = bundle.chain.fingerprint
        self.memory.store.setdefault(fingerprint, bundle)
        return Staged(site.id, fingerprint, self.memory.live[-1])

    def activate(self, staged: Staged) -> str:
        if staged.fingerprint in self.memory.refused:
            raise ActivationRefused("the reference says no")
        if self.memory.live[-1] not in (staged.fingerprint, staged.replaces):
            raise Conflict("somebody else was quicker")
        if self.memory.live[-1] != staged.fingerprint:
            self.memory.live.append(staged.fingerprint)
            self.memory.reloads += 1
        return "reference: switched"

    def restore(self, staged: Staged) -> str:
        if self.memory.live[-1] == staged.fingerprint and len(self.memory.live) > 1:
            self.memory.live.pop()
        return "reference: put back"

    def discard(self, staged: Staged) -> None:
        if self.memory.live[-1] != staged.fingerprint:
            self.memory.store.pop(staged.fingerprint, None)


class LiveAtOnce(Reference):
    """Broken: what is staged is served."""

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        staged = super().stage(site, bundle, replaces)
        self.memory.live.append(staged.fingerprint)
        return staged


class Overwrites(Reference):
    """Broken: a refused certificate stays."""

    def activate(self, staged: Staged) -> str:
        if self.memory.live[-1] != staged.fingerprint:
            self.memory.live.append(staged.fingerprint)
        return super().activate(staged)


class Forgets(Reference):
    """Broken: nothing is put back."""

    def restore(self, staged: Staged) -> str:
        return "put back"


class Blind(Reference):
    """Broken: does not look at what it replaces."""

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        return super().stage(site, bundle, None)


class Tramples(Reference):
    """Broken: does not look again at what it replaces."""

    def activate(self, staged: Staged) -> str:
        self.memory.live.append(staged.fingerprint)
        return "switched"


class PilesUp(Reference):
    """Broken: staging twice stores twice."""

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        staged = super().stage(site, bundle, replaces)
        self.memory.store[f"{len(self.memory.store)}"] = bundle
        return staged


class Hoards(Reference):
    """Broken: what is not wanted stays."""

    def discard(self, staged: Staged) -> None:
        return


class TakesAnything(Reference):
    """Broken: does not check what it is given."""

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        self.memory.store[bundle.chain.fingerprint] = bundle
        return Staged(site.id, bundle.chain.fingerprint, self.memory.live[-1])


class Unlocked(Reference):
    """Broken: each opening of the same machine is held for another one."""

    def __init__(self, memory: Memory) -> None:
        super().__init__(memory)
        self.lock_name = f"machine-{id(self)}"


class Touchy(Reference):
    """Broken: reloads although nothing changed."""

    def activate(self, staged: Staged) -> str:
        self.memory.reloads += 1
        return super().activate(staged)


class Meddles(Reference):
    """Broken: a check leaves something behind."""

    def check(self) -> str:
        self.memory.reloads += 1
        return "reference"


class Lost(Reference):
    """Broken: does not list the site."""

    def sites(self) -> Iterator[Site]:
        yield from ()


class MemoryWorld(World):
    """The reference, or a broken one."""

    def __init__(self, target: type[Reference]) -> None:
        self.ca = TestCa()
        first = self.ca.bundle(SITE)
        self.old = first.chain.fingerprint
        self.site = Site(SITE)
        self._memory = Memory({self.old: first}, [self.old])
        self._target = target

    def open(self) -> InstallTarget:
        return self._target(self._memory)

    def served(self) -> Fingerprint:
        return self._memory.live[-1]

    def snapshot(self) -> dict[str, bytes]:
        stored = {name: bundle.chain.text.encode() for name, bundle in self._memory.store.items()}
        return {**stored, "reloads": str(self._memory.reloads).encode()}

    @contextmanager
    def refuse(self, staged: Staged) -> Iterator[None]:
        self._memory.refused.add(staged.fingerprint)
        yield
        self._memory.refused.discard(staged.fingerprint)


def reference(target: type[Reference]) -> Case:
    """Return a case for *target*."""

    @contextmanager
    def world(directory: Path) -> Iterator[World]:
        yield MemoryWorld(target)

    return Case(target.__name__, "", world, GAPS)


def key_digest(key: PrivateKeyPem | None) -> str:
    """Return a short line of the key that may appear nowhere."""
    assert key is not None
    lines = key.reveal().decode().splitlines()
    assert hashlib.sha256(lines[1].encode()).digest()
    return lines[1]
