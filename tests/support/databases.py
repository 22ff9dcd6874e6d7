"""Real PostgreSQL and MariaDB with a certificate of a test's own CA.

::

    with MariaDb.started() as mariadb:
        mariadb.served()                  # fingerprint a client sees

Each needs root, drops to its own account and listens on 127.0.0.1 only.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from certrail.model import Bundle, Fingerprint, fingerprint
from certrail.remote.local import LocalHost
from certrail.servers.key_file import KeyFile
from certrail.servers.versions import Versions
from tests.support.nginx import TestCa
from tests.support.process import binary, die_with_parent, free_port, running
from tests.support.shared import AT_END, Shared
from tests.support.starttls_servers import home

NAME = "www.example.test"
PAIR = "ssl = on\nssl_cert_file = '@dir@/old.pem'\nssl_key_file '@dir@/old.pem' # both\n"
"""PostgreSQL's settings."""
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def served_after(protocol: str, port: int) -> Fingerprint:
    """Return what openssl's client sees after it asked for TLS in *protocol*."""
    argv = [binary("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}"]
    done = subprocess.run(
        [*argv, "-starttls", protocol], input=b"", capture_output=True, check=False, timeout=60
    )
    found = _CERTIFICATE.search(done.stdout)
    assert found, done.stderr.decode(errors="replace")
    return fingerprint(x509.load_pem_x509_certificate(found[0]))


def write_pem(path: Path, bundle: Bundle, owner: str) -> None:
    """Write key and chain into one file that only *owner* can read."""
    assert bundle.key is not None
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(bundle.key.reveal() + bundle.chain.text.encode())
    shutil.chown(path, owner)


@contextmanager
def session(argv: Sequence[str]) -> Iterator[Callable[[], bool]]:
    """Open a session with a database's own client; the value says whether it still answers."""
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None

        def answers() -> bool:
            assert client.stdin is not None
            assert client.stdout is not None
            try:
                client.stdin.write(b"SELECT 4711;\n")
                client.stdin.flush()
            except BrokenPipeError:
                return False
            return b"4711" in client.stdout.readline()

        assert answers()
        yield answers
        client.stdin.close()


class _Prepared:
    """A data directory that is made once for each process and copied for each server."""

    def __init__(self) -> None:
        self._made: dict[str, Path] = {}

    def copy(self, account: str, to: Path, make: Sequence[str]) -> None:
        if account not in self._made:
            top = Path(AT_END.enter_context(tempfile.TemporaryDirectory()))
            top.chmod(0o755)
            data = top / "data"
            data.mkdir(mode=0o700)
            shutil.chown(data, account)
            argv = [word.replace("@data@", str(data)) for word in make]
            shutil.chown(top, account)
            subprocess.run(
                argv,
                check=True,
                capture_output=True,
                cwd=top,
                env={**os.environ, "TMPDIR": str(top)},
                preexec_fn=die_with_parent,
            )
            self._made[account] = data
        source = self._made[account]
        subprocess.run(["cp", "-a", "--sparse=always", str(source), str(to)], check=True)


_PREPARED = _Prepared()


def as_user(name: str) -> list[str]:
    """Return the words before a command that run it as *name*, until its parent ends."""
    user = pwd.getpwnam(name)
    return [
        "setpriv",
        f"--reuid={user.pw_uid}",
        f"--regid={user.pw_gid}",
        "--init-groups",
        "--pdeathsig=KILL",
    ]


@dataclass
class MariaDb:
    """A running MariaDB. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    folder: Path
    port: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """Its option file."""
        return self.folder / "my.cnf"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        restart = ["sh", str(self.folder / "restart.sh")]
        return {"kind": "mariadb", "config": str(self.config), "restart": restart}

    def served(self) -> Fingerprint:
        """Return what a client sees."""
        return served_after("mysql", self.port)

    def say(self, statement: str) -> str:
        """Return the answer to *statement*."""
        argv = [binary("mariadb", "mariadb-client"), f"--defaults-file={self.config}"]
        done = subprocess.run([*argv, "-BNe", statement], capture_output=True, check=False)
        return done.stdout.decode() if done.returncode == 0 else ""

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a session over TLS; the value says whether it still answers."""
        argv = [binary("mariadb", "mariadb-client"), f"--defaults-file={self.config}"]
        return session([*argv, "--ssl", "--batch", "--skip-column-names", "--unbuffered"])

    def renew(self, bundle: Bundle) -> None:
        """Serve *bundle* from old.pem."""
        write_pem(self.folder / "old.pem", bundle, "mysql")
        self.old = bundle

    def renew_live(self, bundle: Bundle) -> None:
        """Serve *bundle* as if Certrail had installed it, after the next ``FLUSH SSL``."""
        kept = self.folder / "certrail"
        shutil.rmtree(kept, ignore_errors=True)
        key_file = KeyFile(owner="mysql")
        versions = Versions(LocalHost("here"), str(kept / NAME), key_file=key_file)
        versions.switch(versions.target(versions.stage(bundle)))
        self.old = bundle

    @classmethod
    @contextmanager
    def started(
        cls,
        tls: str = "ssl-cert = @dir@/old.pem  # from last year\nssl_key=@dir@/old.pem\n",
        *,
        more: str = "",
        readable: Sequence[Path] = (),
    ) -> Iterator[MariaDb]:
        """Start it; *tls* are lines of ``[mysqld]``, *more* comes after that group.

        ``@dir@/old.pem`` has key and chain; the files *readable* become those of its account.
        """
        program = binary("mariadbd", "mariadb-server")
        ca = TestCa()
        with home() as folder:
            mariadb = cls(folder, free_port(), ca, ca.bundle(NAME))
            mariadb.renew(mariadb.old)
            mariadb.renew_live(mariadb.old)
            shutil.chown(folder, "mysql")
            make = [binary("mariadb-install-db", "mariadb-server"), "--no-defaults"]
            make += ["--user=mysql", "--datadir=@data@", "--skip-test-db"]
            _PREPARED.copy("mysql", folder / "data", make)
            for path in readable:
                copy = folder / path.name
                shutil.copy(path, copy)
                shutil.chown(copy, "mysql")
                tls = tls.replace(str(path), str(copy))
            text = (
                f"[client-server]\nsocket = {folder}/socket\n[mysqld]\n"
                f"datadir = {folder}/data\npid-file = {folder}/pid\nbind-address = 127.0.0.1\n"
                f"port = {mariadb.port}\nskip-log-bin\ninnodb_flush_method = nosync\n"
                f"innodb_buffer_pool_size = 8M\nperformance_schema = off\n"
                f"tmpdir = {folder}\n{tls}{more}"
            )
            mariadb.config.write_bytes(text.replace("@dir@", str(folder)).encode())
            # As systemd does: whoever watches the folder starts it again.
            script = folder / "supervise.sh"
            start = " ".join([*as_user("mysql"), program])
            script.write_text(
                f"trap 'kill $pid; wait $pid; exit' TERM\n"
                f"while true; do {start} --defaults-file={mariadb.config} & pid=$!; "
                "wait $pid; done\n"
            )
            (folder / "restart.sh").write_text(
                f"pid=$(cat {folder}/pid)\nkill $pid\n"
                "while kill -0 $pid 2>/dev/null; do sleep 0.02; done\n"
            )
            log = folder / "output.log"
            with running(["sh", str(script)], log=log, ready=lambda: bool(mariadb.say("SELECT 1"))):
                yield mariadb


@dataclass
class Postgres:
    """A running PostgreSQL. ``server`` is the mapping for an endpoint; add ``site`` to it."""

    folder: Path
    port: int
    ca: TestCa
    old: Bundle

    @property
    def config(self) -> Path:
        """postgresql.conf."""
        return self.folder / "etc" / "postgresql.conf"

    @property
    def server(self) -> dict[str, object]:
        """Settings that reach it."""
        return {"kind": "postgresql", "config": str(self.config)}

    def served(self) -> Fingerprint:
        """Return what a client sees."""
        return served_after("postgres", self.port)

    def write(self, tls: str, files: dict[str, str] | None = None) -> None:
        """Write the configuration; *tls* are lines of it, *files* are written beside."""
        text = (
            f"data_directory = '{self.folder}/data'\t# moved\nport = {self.port}\n"
            f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{self.folder}'\n"
            "fsync = off\nshared_buffers = 1MB\nmax_connections = 10\n"
        )
        for name, one in {**(files or {}), "postgresql.conf": text + tls}.items():
            path = self.config.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = one.replace("@dir@", str(self.folder))
            path.write_bytes(raw.encode("utf-8", "surrogateescape"))

    def reload(self) -> None:
        """Make it read its configuration."""
        os.kill(int((self.folder / "data" / "postmaster.pid").read_text().split()[0]), 1)

    def connection(self) -> AbstractContextManager[Callable[[], bool]]:
        """Open a session over TLS; the value says whether it still answers."""
        place = f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres sslmode=require"
        return session([binary("psql", "postgresql-client"), "-XAtq", place])

    def renew(self, bundle: Bundle) -> None:
        """Serve *bundle* from old.pem after the next reload."""
        write_pem(self.folder / "old.pem", bundle, "postgres")
        self.old = bundle

    @classmethod
    @contextmanager
    def started(
        cls,
        tls: str = PAIR,
        *,
        files: dict[str, str] | None = None,
    ) -> Iterator[Postgres]:
        """Start it; ``@dir@/old.pem`` has key and chain."""
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
        assert programs, "postgres is missing: apt-get install postgresql"
        program, ca = programs[-1], TestCa()
        with home() as folder:
            postgres = cls(folder, free_port(), ca, ca.bundle(NAME))
            postgres.renew(postgres.old)
            shutil.chown(folder, "postgres")
            make = [*as_user("postgres"), str(program.parent / "initdb"), "-D", "@data@"]
            _PREPARED.copy("postgres", folder / "data", [*make, "-A", "trust", "--no-sync"])
            postgres.write(tls, files)
            for name in ("pg_hba.conf", "pg_ident.conf"):
                (postgres.config.parent / name).write_bytes((folder / "data" / name).read_bytes())
            log = folder / "output.log"
            argv = [*as_user("postgres"), str(program), "-D", str(postgres.config.parent)]

            def ready() -> bool:
                return "ready to accept connections" in log.read_text()

            with running(argv, log=log, ready=ready, cwd=folder, stop_signal=2):
                yield postgres


_LIVE = f"@dir@/certrail/{NAME}/live"
MARIADB = Shared(
    lambda: MariaDb.started(f"ssl-cert={_LIVE}/fullchain.pem\nssl-key={_LIVE}/privkey.pem\n")
)
"""It names our files already, so that nothing has to be restarted."""
POSTGRES = Shared(Postgres.started)


def fresh_mariadb() -> MariaDb:
    """Return the shared MariaDB with a certificate that nobody has seen."""
    mariadb = MARIADB.get()
    mariadb.renew_live(mariadb.ca.bundle(NAME))
    mariadb.say("FLUSH SSL")
    return mariadb


def fresh_postgres(tls: str = PAIR, *, files: dict[str, str] | None = None) -> Postgres:
    """Return the shared PostgreSQL, configured with *tls*, with a new certificate."""
    postgres = POSTGRES.get()
    shutil.rmtree(postgres.config.parent / "certrail", ignore_errors=True)
    shutil.rmtree(postgres.config.parent / "conf.d", ignore_errors=True)
    postgres.renew(postgres.ca.bundle(NAME))
    postgres.write(tls, files)
    postgres.reload()
    return postgres
