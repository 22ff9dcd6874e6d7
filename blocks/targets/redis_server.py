"""Redis or Valkey over its own protocol: new certificate files, no restart.

``CONFIG SET tls-cert-file … tls-key-file …`` sets both in one step and loads them;
a pair that cannot be loaded is refused and the old one stays. ``CONFIG REWRITE``
makes it last. (Redis commands "CONFIG SET", several parameters since 7.0.0, and
"CONFIG REWRITE"; Redis manual "TLS"; looked up November 2026, tried with 7.0.15.)
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import redis
from cryptography import x509
from pydantic import Field, SecretStr
from redis.backoff import NoBackoff
from redis.retry import Retry

from blocks._base import TargetBlock, open_secret
from blocks._target import must_replace, must_take, opened_host, short
from certrail.connectors import Host, InstallTarget, Traits
from certrail.errors import (
    ActivationRefused,
    AuthenticationFailed,
    Busy,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import effect, plain
from certrail.model import (
    UNREADABLE,
    Bundle,
    Fingerprint,
    Site,
    Staged,
    fingerprint,
    key_text,
    subject_names,
)
from certrail.remote import http
from certrail.remote.machine import machine_of
from certrail.servers.key_file import KeyFile
from certrail.servers.versions import CHAIN, KEY, Versions

SITE = "server"
_CERT, _KEY = "tls-cert-file", "tls-key-file"


class RedisServer(TargetBlock):
    """Replace the certificate of a Redis or Valkey server (7.0 or later).

    The site is always `server`: it has one certificate. Its files are written
    through a host connector, and it loads them itself, so its account must be
    able to read them. The account given here needs `CONFIG GET`, `CONFIG SET`,
    `CONFIG REWRITE` and `INFO`.
    """

    _block_type_slug = "target-redis"
    _block_type_name = "Certrail target: Redis"

    address: str = Field(min_length=1, description="Name or address of the server.")
    port: int = Field(default=6379, ge=1, le=65535, description="Its port.")
    tls: bool = Field(default=True, description="Whether that port speaks TLS.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for its certificate; empty: system."
    )
    username: str = Field(default="default", description="Account (ACL user).")
    password: SecretStr | None = Field(
        default=None, description="The account's password, or a reference to it."
    )
    host: str = Field(
        description="Host connector (host-ssh/cache1, host-local/here) of the server's machine."
    )
    directory: str = Field(
        default="/etc/redis/certrail", description="Where certificate and key are kept there."
    )
    key_owner: str = Field(default="", description="Owner of the key file, such as redis.")
    key_group: str = Field(default="", description="Group of the key file.")
    key_mode: int = Field(
        default=0o600, ge=0o400, le=0o640, description="Permission bits of the key file."
    )
    rewrite: bool = Field(
        default=True,
        description="Save the change in the server's configuration file; without it a restart "
        "brings the old certificate back.",
    )
    timeout: int = Field(default=10, ge=1, le=120, description="Seconds a command may take.")

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        with (
            opened_host(self.host) as host,
            client(
                self.address,
                self.port,
                tls=self.tls,
                ca_bundle=self.ca_bundle,
                username=self.username,
                password=open_secret(self.password),
                timeout=self.timeout,
            ) as connection,
        ):
            target = RedisTarget(
                connection,
                host,
                label=self.label,
                directory=self.directory,
                key_file=KeyFile(self.key_mode, self.key_owner, self.key_group),
                rewrite=self.rewrite,
            )
            # A connector for the machine may change the same files.
            target.lock_name = machine_of(host)
            yield target


@contextmanager
def client(
    address: str,
    port: int,
    *,
    tls: bool,
    ca_bundle: str = "",
    username: str = "default",
    password: str = "",
    timeout: float = 10,
) -> Iterator[redis.Redis]:
    """Return a client that never retries and verifies the server's certificate.

    Raises:
        InvalidRequest: the CA bundle cannot be used.
    """
    options: dict[str, Any] = {}
    if tls:
        http.tls_context(ca_bundle)  # for its error, which is one of ours
        text = "-----BEGIN" in ca_bundle
        options = {"ssl": True, "ssl_check_hostname": True}
        options |= {"ssl_ca_data" if text else "ssl_ca_certs": ca_bundle} if ca_bundle else {}
    connection = redis.Redis(
        host=address,
        port=port,
        username=username if password else None,
        password=password or None,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        protocol=2,
        **options,
    )
    try:
        yield connection
    finally:
        connection.close()


class RedisTarget(InstallTarget):
    """One Redis server and the machine it runs on."""

    traits = Traits(
        transactional=True,
        restores_by="the server is pointed at the old files again, which are left where they are",
        needs_save=True,
    )

    def __init__(
        self,
        client: redis.Redis,
        host: Host,
        *,
        label: str,
        directory: str,
        key_file: KeyFile | None = None,
        rewrite: bool = True,
    ) -> None:
        self._client = client
        self._host = host
        self._label = label
        self._versions = Versions(host, directory, key_file=key_file)
        self._rewrite = rewrite

    def check(self) -> str:
        version, config = self._must_be_usable()
        names = "no certificate yet" if not self._files()[0] else self._files()[0]
        saved = (
            f"changes are saved in {plain(config)}" if self._rewrite else "changes are not saved"
        )
        return f"Redis {version}, {plain(names)}; changes are {saved}; {self._host.check()}"

    def sites(self) -> Iterator[Site]:
        leaf = self._leaf()
        if leaf is not None:
            yield Site(SITE, subject_names(leaf), tls=True, fingerprint=fingerprint(leaf))

    def serving(self, site: Site) -> Fingerprint | None:
        _must_be(site.id)
        leaf = self._leaf()
        return fingerprint(leaf) if leaf is not None else None

    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        must_take(bundle, self.traits, "Redis")
        new = bundle.chain.fingerprint
        present = self.serving(site)
        must_replace(present, replaces, new, "the server", self._label)
        self._must_be_usable()
        cert, key = self._files()
        version = self._versions.stage(bundle)
        effect("target.stage", connector=self._label, fingerprint=new)
        return Staged(
            site.id,
            new,
            replaces or present,
            f"Redis: {_CERT} and {_KEY} point to {key_text(bundle.chain.leaf)} in "
            f"{self._versions.path(version)}",
            {"version": version, "old": [cert, key]},
        )

    def activate(self, staged: Staged) -> str:
        files = self._paths(staged)
        if self._files() == files:
            # Loaded before, by whatever ended before it could say so.
            self._save()
            return f"Redis: {short(staged.fingerprint)} was live already, nothing changed"
        present = self.serving(Site(staged.site))
        must_replace(present, staged.replaces, staged.fingerprint, "the server", self._label)
        self._point_at(files)
        self._save()
        effect("target.activate", connector=self._label, files=files[0])
        saved = "and saved" if self._rewrite else "but not saved: a restart brings the old one back"
        return f"Redis: {_CERT} and {_KEY} changed, loaded {saved}"

    def restore(self, staged: Staged) -> str:
        cert, key = (str(path) for path in staged.data["old"])
        now = self._files()
        if now == (cert, key):
            return "Redis: nothing to put back"
        if now != self._paths(staged):
            raise Conflict(
                f"{self._label}: the server was pointed elsewhere since, to {plain(now[0])}",
                connector=self._label,
            )
        self._point_at((cert, key))
        self._save()
        effect("target.restore", connector=self._label, files=cert)
        return f"Redis: {short(staged.replaces)} put back, loaded"

    def discard(self, staged: Staged) -> None:
        directory = self._versions.path(str(staged.data["version"]))
        live = posixpath.dirname(self._files()[0])
        old = posixpath.dirname(str(staged.data["old"][0]))
        ours = posixpath.join(self._versions.directory, "versions")
        # Of two versions of ours, only the one in use stays.
        for path in {directory, old} - {live}:
            if posixpath.dirname(path) == ours:
                self._host.remove(path, tree=True)
        if directory != live:
            self._versions.remove(str(staged.data["version"]))

    def _must_be_usable(self) -> tuple[str, str]:
        """Return version and configuration file.

        Raises:
            InvalidRequest: too old, or the change could not be saved.
        """
        info = self._ask("INFO", "server")
        version = str(info.get("redis_version", "")) if isinstance(info, dict) else ""
        if not version.partition(".")[0].isdigit():
            raise UnexpectedReply(f"{self._label}: not a Redis server", connector=self._label)
        if int(version.partition(".")[0]) < 7:
            raise InvalidRequest(
                f"{self._label}: Redis {plain(version)} cannot change certificate and key together",
                remedy="Use Redis 7.0 or later, or install through a host with `kind: command`.",
            )
        config = str(info.get("config_file", ""))
        if self._rewrite and not config:
            raise InvalidRequest(
                f"{self._label}: the server was started without a configuration file, so a "
                "change cannot be saved",
                remedy="Start it with a file, or set rewrite: false and accept that a restart "
                "brings the old certificate back.",
            )
        return plain(version), config

    def _files(self) -> tuple[str, str]:
        found = self._ask("CONFIG GET", "tls-*-file")
        if not isinstance(found, dict) or _CERT not in found:
            raise InvalidRequest(
                f"{self._label}: this server is built without TLS",
                remedy="Use a Redis that is built with TLS.",
            )
        return str(found[_CERT]), str(found.get(_KEY, ""))

    def _leaf(self) -> x509.Certificate | None:
        path = self._files()[0]
        if not path:
            return None
        if not path.startswith("/"):
            raise InvalidRequest(
                f"{self._label}: {_CERT} is {plain(path)}, relative to where Redis was started",
                remedy="Write an absolute path into its configuration.",
            )
        try:
            return x509.load_pem_x509_certificate(self._host.read_file(path))
        except (NotFound, *UNREADABLE):
            return None

    def _paths(self, staged: Staged) -> tuple[str, str]:
        directory = self._versions.path(str(staged.data["version"]))
        return posixpath.join(directory, CHAIN), posixpath.join(directory, KEY)

    def _point_at(self, files: tuple[str, str]) -> None:
        try:
            self._ask("CONFIG SET", _CERT, files[0], _KEY, files[1])
        except Rejected as exc:
            raise ActivationRefused(
                f"Redis refused the certificate: {exc}",
                remedy="Look into the server's log: most often its account cannot read "
                f"{files[1]}; set key_owner. Then retry, no new order is made.",
            ) from exc

    def _save(self) -> None:
        if not self._rewrite:
            return
        try:
            self._ask("CONFIG REWRITE")
        except Rejected as exc:
            raise PermissionRefused(
                f"{self._label}: the certificate is live, but not saved: {exc}",
                remedy="Let the server's account write its configuration file and directory, "
                "or set rewrite: false; a restart brings the old certificate back.",
                connector=self._label,
            ) from exc

    def _ask(self, *command: str) -> Any:
        what = f"{self._label}: {command[0]}"
        errors = redis.exceptions
        try:
            return cast(Any, self._client).execute_command(*command)
        except errors.AuthenticationError as exc:
            raise AuthenticationFailed(
                f"{what}: {plain(exc)}",
                remedy="Correct username and password of the connector.",
                connector=self._label,
            ) from exc
        except errors.NoPermissionError as exc:
            raise PermissionRefused(
                f"{what}: {plain(exc)}",
                remedy="Give the account `+config|get +config|set +config|rewrite +info`.",
                connector=self._label,
            ) from exc
        except errors.BusyLoadingError as exc:
            raise Busy(f"{what}: the server is still loading", connector=self._label) from exc
        except errors.InvalidResponse as exc:
            raise UnexpectedReply(f"{what}: not a Redis server", connector=self._label) from exc
        except errors.TimeoutError as exc:
            raise Unreachable(f"{what}: no answer in time", connector=self._label) from exc
        except errors.ConnectionError as exc:
            if "CERTIFICATE_VERIFY_FAILED" in str(exc):
                raise Unreachable(
                    f"{what}: the server's certificate is not trusted ({plain(exc)})",
                    remedy="Set ca_bundle to the CA that issued it, and address the server by a "
                    "name that is in it.",
                    connector=self._label,
                    code="untrusted",
                ) from exc
            raise Unreachable(f"{what}: {plain(exc)}", connector=self._label) from exc
        except errors.ResponseError as exc:
            raise Rejected(f"{what}: {plain(exc)}", connector=self._label) from exc
        except (errors.RedisError, ValueError, TypeError, RecursionError) as exc:
            # The library reads numbers and lengths as they come.
            raise UnexpectedReply(
                f"{what}: the reply is not of Redis' protocol", connector=self._label
            ) from exc


def _must_be(site: str) -> None:
    if site != SITE:
        raise InvalidRequest(
            f"a Redis server has no certificate of its own for {plain(site)}",
            remedy=f"Set the endpoint's site to `{SITE}`: the server has one certificate.",
        )
