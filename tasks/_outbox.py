"""Lifecycle events as Prefect events: sent soon after the commit, with the ids of the outbox.

They are posted in batches and noted as emitted once Prefect has them. A
process that dies in between leaves them to the next one that looks, and
Prefect keeps one event for each id.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client

from certrail.errors import CertrailError
from certrail.log import plain
from certrail.store import outbox
from certrail.store.outbox import Happened

_log = logging.getLogger("certrail")

_SOON = 0.3
_BATCH = 200


def nudge() -> None:
    """Let this process emit what was just written, within a second or so; never waits."""
    _emitter.nudge()


def emit_all() -> int:
    """Emit every event that waits; returns how many there were.

    Raises:
        httpx.HTTPError: Prefect's API does not take them.
        Unreachable: the database does not answer.
    """
    emitted = 0
    with get_client(sync_client=True) as client:
        while found := outbox.emit_waiting(lambda events: _post(client, events), limit=_BATCH):
            emitted += found
    return emitted


def _post(client: SyncPrefectClient, events: Sequence[Happened]) -> None:
    client.request("POST", "/events", json=[as_prefect_event(event) for event in events])


def as_prefect_event(event: Happened) -> Mapping[str, Any]:
    """Return the event as Prefect's API takes it."""
    related = []
    if event.flow_run_id is not None:
        related.append(
            {
                "prefect.resource.id": f"prefect.flow-run.{event.flow_run_id}",
                "prefect.resource.role": "flow-run",
            }
        )
    return {
        "id": str(event.event_id),
        "occurred": event.occurred.isoformat(),
        "event": event.event,
        "resource": {
            "prefect.resource.id": event.resource,
            "prefect.resource.name": event.location,
        },
        "related": related,
        "payload": event.payload,
    }


class _Emitter:
    """One thread for the process, begun at the first nudge."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def nudge(self) -> None:
        self._asked.set()
        with self._guard:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="events", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._asked.wait():
            # A moment for the others: a bulk job's events go in batches.
            threading.Event().wait(_SOON)
            self._asked.clear()
            try:
                emit_all()
            except (CertrailError, httpx.HTTPError, RuntimeError) as exc:
                # The notifications flow looks every minute.
                _log.warning("events are emitted later: %s", plain(exc))


_emitter = _Emitter()
