"""Telling people and programs what happened: emit, route, send."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_UI_URL

from blocks._base import NotifierBlock, forget_connectors
from certrail.connectors import Notifier
from certrail.errors import CertrailError
from certrail.log import plain
from certrail.notify import alarms, drain
from certrail.store import database
from certrail.words import counted
from tasks._outbox import emit_all
from tasks._threads import in_thread


@task(
    name="Emit events",
    task_run_name="Emit events",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def emit_events() -> int:
    """Hand events to Prefect that the process which wrote them did not."""
    try:
        return await in_thread(emit_all)
    except httpx.HTTPError as exc:
        # People hear of it all the same.
        get_run_logger().warning("Prefect's API does not take events: %s", plain(exc))
        return 0


@task(
    name="Route events",
    task_run_name="Route events",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def route_events() -> int:
    """Note certificates that expire, and write down who is to hear of what happened."""
    now = await in_thread(database.now)
    await in_thread(drain.note_expiries, now)
    await in_thread(alarms.note_overdue, now)
    return await in_thread(drain.route, now)


@task(
    name="Send messages",
    task_run_name="Send messages",
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def send_messages() -> int:
    """Send what is due; what is not taken is tried again later."""
    log = get_run_logger()
    done = await in_thread(drain.send_due, open_notifier, ui_url=PREFECT_UI_URL.value() or "")
    for channel, trouble in done.troubles.items():
        log.warning("%s: %s", channel, trouble)
    if done.sent or done.postponed or done.failed:
        log.info(
            "%s sent, %d tried again later, %d given up",
            counted(done.sent, "message"),
            done.postponed,
            done.failed,
        )
    return done.sent


@contextmanager
def open_notifier(reference: str) -> Iterator[Notifier]:
    """Open the notifier stored as ``<slug>/<name>``."""
    block = NotifierBlock.named(reference)
    try:
        with block.connect() as notifier:
            yield notifier
    except CertrailError:
        # Somebody may be about to correct it.
        forget_connectors()
        raise
