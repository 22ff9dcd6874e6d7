"""The SSH server of the demo's machine: ``python -m deployments.demo.ssh_server FOLDER PORT``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import asyncssh


async def serve(folder: Path, port: int) -> None:
    """Serve commands and SFTP to whoever holds a key of ``authorized_keys``."""
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
    """Run one command as sshd does: through the shell, its exit code handed back."""
    child = await asyncio.create_subprocess_shell(
        process.command or "true",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    # Whole, not passed on as it comes: a command that ends at once would take with it what it
    # said last, or the connection, by the input that it does not read.
    said, complained = await child.communicate(await process.stdin.read())
    process.stdout.write(said)
    process.stderr.write(complained)
    process.exit(child.returncode or 0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
