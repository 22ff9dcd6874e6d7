"""Real servers that begin TLS by STARTTLS: Postfix, Dovecot, OpenLDAP, PostgreSQL.

Each needs root, as the packages' own services do, and listens on 127.0.0.1
only. ``file`` is one PEM with key and chain (see ``Issued.write``).
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import binary, die_with_parent, free_port, running, wait_for


@contextmanager
def postfix(file: Path | None) -> Iterator[int]:
    """Run Postfix as an SMTP server; without *file* it offers no STARTTLS."""
    tls = ["smtpd_tls_security_level = none"]
    if file is not None:
        tls = ["smtpd_tls_security_level = may", f"smtpd_tls_chain_files = {file}"]
    with home() as folder, postfix_in(folder, tls) as port:
        yield port


@contextmanager
def postfix_in(
    folder: Path, tls: Sequence[str], *, name: str = "mail.example.com", more: Sequence[str] = ()
) -> Iterator[int]:
    """Run Postfix in *folder*: *tls* are lines of main.cf, *more* those of master.cf."""
    program = binary("postfix", "postfix")
    port = free_port()
    spool, data, conf = folder / "spool", folder / "data", folder / "postfix"
    for path in (spool, data, conf):
        path.mkdir()
    _own(data, "postfix")
    settings = [
        "compatibility_level = 3.6",
        f"queue_directory = {spool}",
        f"data_directory = {data}",
        "command_directory = /usr/sbin",
        "daemon_directory = /usr/lib/postfix/sbin",
        "mail_owner = postfix",
        "setgid_group = postdrop",
        f"myhostname = {name}",
        "inet_interfaces = 127.0.0.1",
        "inet_protocols = ipv4",
        "mynetworks = 127.0.0.0/8",
        "local_recipient_maps =",
        "alias_maps =",
        f"maillog_file = {folder}/mail.log",
        f"maillog_file_prefixes = {folder}",
        *tls,
    ]
    (conf / "main.cf").write_text("\n".join(settings) + "\n")
    services = [
        f"127.0.0.1:{port} inet n - n - - smtpd",
        "postlog unix-dgram n - n - 1 postlogd",
        "rewrite unix - - n - - trivial-rewrite",
        "cleanup unix n - n - 0 cleanup",
        "qmgr unix n - n 300 1 qmgr",
        "tlsmgr unix - - n 1000? 1 tlsmgr",
        "anvil unix - - n - 1 anvil",
        "pickup unix n - n 60 1 pickup",
        "bounce unix - - n - 0 bounce",
        "defer unix - - n - 0 bounce",
        "trace unix - - n - 0 bounce",
        "proxymap unix - - n - - proxymap",
        *more,
    ]
    (conf / "master.cf").write_text("\n".join(services) + "\n")
    argv = [program, "-c", str(conf), "start-fg"]
    log = folder / "postfix.log"
    try:
        with running(argv, log=log, ready=lambda: _greets(port, b"220 "), within=30):
            yield port
    finally:
        # The master leaves the process group of what was started, so a signal may not do.
        subprocess.run([program, "-c", str(conf), "stop"], check=False, capture_output=True)


@contextmanager
def dovecot(file: Path | None) -> Iterator[tuple[int, int]]:
    """Run Dovecot and yield the ports of IMAP and POP3; without *file* it offers no STARTTLS."""
    tls = "ssl = no" if file is None else f"ssl = yes\nssl_cert = <{file}\nssl_key = <{file}"
    with home() as folder, dovecot_in(folder, tls) as ports:
        yield ports


@contextmanager
def dovecot_in(folder: Path, tls: str) -> Iterator[tuple[int, int]]:
    """Run Dovecot in *folder*, *tls* being the lines about it."""
    program = binary("dovecot", "dovecot-imapd dovecot-pop3d")
    imap, pop3 = free_port(), free_port()
    base = folder / "run"
    conf = folder / "dovecot.conf"
    conf.write_text(
        f"""base_dir = {base}
state_dir = {folder}
log_path = {folder}/dovecot.log
protocols = imap pop3
listen = 127.0.0.1
{tls}
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={folder}
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  chroot =
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
"""
    )

    def ready() -> bool:
        return _greets(imap, b"* OK") and _greets(pop3, b"+OK")

    with running([program, "-F", "-c", str(conf)], log=folder / "dovecot.out", ready=ready):
        yield imap, pop3


@contextmanager
def slapd(file: Path | None) -> Iterator[int]:
    """Run OpenLDAP with an empty in-memory tree; without *file* it refuses StartTLS."""
    with home() as folder, _slapd(folder, file) as ports:
        yield ports


@contextmanager
def _slapd(folder: Path, file: Path | None) -> Iterator[int]:
    program = binary("slapd", "slapd")
    port = free_port()
    conf = folder / "slapd.conf"
    tls = ""
    if file is not None:
        tls = (
            f"TLSCertificateFile {file}\nTLSCertificateKeyFile {file}\nTLSCACertificateFile {file}"
        )
    conf.write_text(
        f"""include /etc/ldap/schema/core.schema
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
{tls}
database ldif
directory {folder}
suffix "dc=example,dc=com"
"""
    )
    argv = [program, "-d", "0", "-f", str(conf), "-h", f"ldap://127.0.0.1:{port}"]
    with running(argv, log=folder / "slapd.log", port=port):
        yield port


@contextmanager
def postgresql(file: Path | None) -> Iterator[int]:
    """Run PostgreSQL as its own user; without *file* SSL is off."""
    with home() as folder, _postgresql(folder, file) as ports:
        yield ports


@contextmanager
def _postgresql(folder: Path, file: Path | None) -> Iterator[int]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    assert programs, "postgres is missing: apt-get install postgresql"
    bin_folder = programs[-1].parent
    user = pwd.getpwnam("postgres")
    port = free_port()
    home = folder / "pg"
    home.mkdir(mode=0o700)
    os.chown(home, user.pw_uid, user.pw_gid)
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"]
    data = home / "data"
    subprocess.run(
        [*as_user, str(bin_folder / "initdb"), "-D", str(data), "-A", "trust", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=home,
        preexec_fn=die_with_parent,
    )
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}"]
    if file is not None:
        own = data / "server.pem"
        own.touch(mode=0o600)
        own.write_bytes(file.read_bytes())
        os.chown(own, user.pw_uid, user.pw_gid)
        settings += ["ssl=on", f"ssl_cert_file={own}", f"ssl_key_file={own}"]
    options = [word for setting in settings for word in ("-c", setting)]
    argv = [*as_user, str(bin_folder / "postgres"), "-D", str(data), *options]
    with running(argv, log=folder / "postgres.log", port=port, cwd=home):
        wait_for(lambda: _ready_for_queries(folder / "postgres.log"), "PostgreSQL is ready")
        yield port


def _ready_for_queries(log: Path) -> bool:
    return "ready to accept connections" in log.read_text()


def _greets(port: int, greeting: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            return connection.recv(64).startswith(greeting)
    except OSError:
        return False


def _own(path: Path, user: str) -> None:
    entry = pwd.getpwnam(user)
    os.chown(path, entry.pw_uid, entry.pw_gid)


@contextmanager
def home() -> Iterator[Path]:
    """Yield a folder that other users can enter.

    Not pytest's: any other test run that starts closes /tmp/pytest-of-root to
    all users but its own.
    """
    with tempfile.TemporaryDirectory(prefix="certrail-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
