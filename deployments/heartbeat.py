"""What a worker says of itself: which queues it serves, and that it lives."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectAlreadyExists

from certrail import __version__
from certrail.errors import CertrailError
from certrail.store import executors
from certrail.store.executors import DEFAULT_QUEUE

_SECONDS = 10.0
_log = logging.getLogger("certrail")


def serving(name: str, queues: Sequence[str] | None) -> list[str]:
    """Return the queues that a worker takes from: those asked for, else its own and the default.

    Never all of its pool: what only another executor reaches would fail here.
    """
    return list(dict.fromkeys(queues or (DEFAULT_QUEUE, name)))


async def make_queues(pool: str, queues: Sequence[str]) -> None:
    """Make the queues that are missing in the pool; one that does not exist is served by nobody."""
    async with get_client() as client:
        for queue in queues:
            with suppress(ObjectAlreadyExists):
                await client.create_work_queue(name=queue, work_pool_name=pool)


class Heartbeat:
    """A thread that writes down every few seconds that the worker lives.

    A thread, because a loop that is busy with hundreds of runs is late; and
    in our own database, because Prefect forgets workers.
    """

    def __init__(self, pool: str, name: str, queues: Sequence[str]) -> None:
        self._pool, self._name, self._queues = pool, name, queues
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"beat {pool}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and say so."""
        self._ended.set()
        self._thread.join(_SECONDS)
        with suppress(CertrailError):
            executors.stopped(self._pool, self._name)

    def _run(self) -> None:
        while True:
            try:
                executors.beat(
                    self._pool,
                    self._name,
                    self._queues,
                    version=__version__,
                    host=socket.gethostname(),
                )
            except CertrailError as exc:
                _log.warning("heartbeat: %s", exc)
            if self._ended.wait(_SECONDS):
                return
