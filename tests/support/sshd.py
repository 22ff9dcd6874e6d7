"""A real Debian sshd for tests, with keys of its own; and throw-away accounts to log in to.

Typical use::

    with sshd(tmp_path) as server:
        connect("127.0.0.1", server.port, username="root",
                private_key_file=server.key_file, known_hosts_file=server.known_hosts)

sshd has to be started by root. Nothing of the machine's own SSH
configuration is read or changed.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from certrail.remote.posix_host import PosixHost
from certrail.remote.ssh import ssh_host
from certrail.remote.ssh_pool import SshPool
from certrail.remote.ssh_settings import SshSettings
from tests.support.process import binary, free_port, running, wait_for


@dataclass(frozen=True)
class Sshd:
    """A running sshd.

    Attributes:
        port: on 127.0.0.1.
        host_key: the server's public key, ``ssh-ed25519 AAAA…``.
        known_hosts: a file that pins that key for this port.
        key_file: a private key that every account accepts.
        pid: of the process that listens.
        log: what sshd says.
    """

    port: int
    host_key: str
    known_hosts: Path
    key_file: Path
    pid: int
    log: Path

    def sessions(self) -> list[psutil.Process]:
        """Return the processes that serve connections now, commands included."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def cut_connections(self, *, commands: bool = True) -> None:
        """Kill every session, as a crash or a reboot of the host would.

        Without *commands* what runs in them is left alone, as when only the
        network fails.
        """
        victims = [item for item in self.sessions() if commands or _name(item) == "sshd"]
        for victim in victims:
            try:
                victim.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(victims, timeout=10)


@dataclass(frozen=True)
class Account:
    """A throw-away user of this machine; the password is known to the test only."""

    name: str
    password: str
    home: Path


@contextmanager
def sshd(
    folder: Path,
    *,
    sftp: bool = True,
    password_login: bool = False,
    startup_files: bool = False,
    options: Sequence[str] = (),
    port: int | None = None,
    inside: Sequence[str] = (),
) -> Iterator[Sshd]:
    """Start sshd on a free port of 127.0.0.1 and stop it with all its sessions.

    *folder* receives keys, configuration and log; *options* are further lines
    of sshd_config(5), and win over ours because the first mention counts. *inside* is
    a command that runs the rest of its arguments, in a namespace say.
    """
    program = binary("sshd", "openssh-server")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    host_key = write_key(folder / "host_key", ed25519.Ed25519PrivateKey.generate())
    authorized = write_key(folder / "id", ec.generate_private_key(ec.SECP256R1()))
    (folder / "authorized_keys").write_text(authorized + "\n")
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{port} {host_key}\n")
    lines = [
        *options,
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host_key'}",
        "PidFile none",
        "UsePAM no",
        "StrictModes no",
        "PermitRootLogin yes",
        f"PasswordAuthentication {'yes' if password_login else 'no'}",
        "KbdInteractiveAuthentication no",
        # A command, because the file of a test is not readable by ordinary accounts.
        f"AuthorizedKeysCommand {binary('cat', 'coreutils')} {folder / 'authorized_keys'}",
        "AuthorizedKeysCommandUser root",
        "AuthorizedKeysFile none",
        "MaxStartups 200:30:400",
        "MaxSessions 100",
        "UseDNS no",
        # Keeps bash from reading start-up files: those of the machine that runs
        # the tests can take longer than all the rest.
        *([] if startup_files else ["SetEnv SHLVL=9"]),
        "LogLevel VERBOSE",
        *(["Subsystem sftp internal-sftp"] if sftp else []),
    ]
    config = folder / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    log = folder / "sshd.log"
    argv = [*inside, program, "-D", "-e", "-f", str(config)]
    with running(argv, log=log, port=port) as process:
        server = Sshd(port, host_key, known_hosts, folder / "id", process.pid, log)
        try:
            yield server
        finally:
            server.cut_connections()


@contextmanager
def account(*, sudo: str = "") -> Iterator[Account]:
    """Create a user of this machine and remove it with its home.

    *sudo* is what sudoers(5) grants, such as ``NOPASSWD: ALL`` or ``ALL``;
    "" grants nothing.
    """
    name = f"certrail-{secrets.token_hex(4)}"
    password = secrets.token_urlsafe(16)
    rules = Path("/etc/sudoers.d") / name
    home = Path("/home") / name
    add = [binary("useradd", "passwd"), "--create-home", "--home-dir", str(home)]
    subprocess.run([*add, "--shell", "/bin/bash", name], check=True, capture_output=True)
    try:
        subprocess.run(
            [binary("chpasswd", "passwd")],
            input=f"{name}:{password}\n".encode(),
            check=True,
            capture_output=True,
        )
        if sudo:
            rules.touch(mode=0o440)
            rules.write_text(f"{name} ALL=(ALL:ALL) {sudo}\n")
        yield Account(name, password, home)
    finally:
        rules.unlink(missing_ok=True)
        wait_for(lambda: not _processes_of(name), f"no process of {name} is left")
        subprocess.run(
            [binary("userdel", "passwd"), "--force", "--remove", name],
            check=True,
            capture_output=True,
        )


def write_key(
    path: Path,
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    *,
    passphrase: str = "",
) -> str:
    """Write *key* in OpenSSH's format, mode 0600; return its public line."""
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(passphrase.encode())
        if passphrase
        else serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption
        )
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return public.decode()


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def _processes_of(name: str) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["username", "status"])
        if process.info["username"] == name and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


@contextmanager
def over_ssh(
    server: Sshd, user: Account, name: str, changes: Mapping[str, Any] | None = None, **how: Any
) -> Iterator[PosixHost]:
    """Open this machine as *user* sees it behind *server*, with connections of its own.

    Args:
        server: what to log in to.
        user: who.
        name: of the host connector.
        changes: to the settings of the connection.
        how: further words of :func:`certrail.remote.ssh.ssh_host`.
    """
    settings = SshSettings(
        host="127.0.0.1",
        port=server.port,
        username=user.name,
        private_key_file=str(server.key_file),
        known_hosts_file=str(server.known_hosts),
        **(changes or {}),
    )
    pool = SshPool()
    try:
        with ssh_host(settings, name=name, pool=pool, **how) as host:
            yield host
    finally:
        pool.close()
