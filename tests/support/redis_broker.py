"""A plain Redis with a password, as the Prefect server's messages need one."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.process import binary, free_port, running

PASSWORD = "carries-messages"


@dataclass
class Broker:
    """A server that keeps nothing on disk: all that it had is lost when it ends."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    _now: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, on the same port each time."""
        config = self.folder / "broker.conf"
        config.write_text(
            f'port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nsave ""\nappendonly no\n'
            f"requirepass {PASSWORD}\n"
        )
        argv = [binary("redis-server", "redis-server"), str(config)]
        log = self.folder / "broker.log"
        self.process = self._now.enter_context(running(argv, log=log, port=self.port))

    def restart(self, how: signal.Signals) -> None:
        """End it by a signal, and start it again a moment later."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(20)
        time.sleep(1)
        self.start()

    def stop(self) -> None:
        """End it."""
        self._now.close()


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """Run one while the block runs."""
    made = Broker(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()
