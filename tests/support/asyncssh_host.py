"""An SSH server that needs neither root nor a Debian package: asyncssh, in a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.support.process import free_port, running
from tests.support.sshd import Sshd, write_key

_ROOT = Path(__file__).parents[2]


@contextmanager
def asyncssh_host(folder: Path) -> Iterator[Sshd]:
    """Serve this machine, with our own account's rights, over SSH and SFTP."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    host_key = write_key(folder / "host_key", ed25519.Ed25519PrivateKey.generate())
    authorized = write_key(folder / "id", ec.generate_private_key(ec.SECP256R1()))
    (folder / "authorized_keys").write_text(authorized + "\n")
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    argv = [sys.executable, "-m", "tests.support.asyncssh_host", str(folder), str(port)]
    log = folder / "asyncssh.log"
    env = {"PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    with running(argv, log=log, port=port, cwd=_ROOT, env=env) as process:
        yield Sshd(port, host_key, folder / "known_hosts", folder / "id", process.pid, log)


async def _serve(folder: Path, port: int) -> None:
    await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[str(folder / "host_key")],
        authorized_client_keys=str(folder / "authorized_keys"),
        process_factory=_run,
        sftp_factory=True,
        encoding=None,
    )
    await asyncio.Event().wait()


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run a command as sshd would: by the shell, with its exit code handed back."""
    child = subprocess.Popen(
        process.command or "true",
        shell=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    code = await asyncio.to_thread(child.wait)
    process.exit(code)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))
