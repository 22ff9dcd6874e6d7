"""A plain Redis with a password, as the Prefect server's messages need one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.process import binary, free_port, running

PASSWORD = "carries-messages"


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Run one while the block runs; yields its address."""
    port = free_port()
    config = folder / "broker.conf"
    config.write_text(
        f'port {port}\nbind 127.0.0.1\ndir {folder}\nsave ""\nappendonly no\n'
        f"requirepass {PASSWORD}\n"
    )
    program = binary("redis-server", "redis-server")
    with running([program, str(config)], log=folder / "broker.log", port=port):
        yield f"redis://:{PASSWORD}@127.0.0.1:{port}/0"
