"""Which budgets pause, as far as this process knows: its own news at once, others' in a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from threading import Lock

from certrail.errors import CertrailError
from certrail.jobs import pauses
from certrail.jobs.pauses import Code, Pause
from certrail.store import pauses as store
from certrail.store.requests import Request
from certrail.tracker import Title
from tasks._threads import in_lease_thread

_EVERY_SECONDS = 1.0

_lock = Lock()
_known: dict[str, tuple[Pause, float]] = {}
"""With each when it ends by the clock that nobody steps."""

_asked = float("-inf")


def note(error: CertrailError, request: Request, title: Title) -> None:
    """Let the budget of the request's CA pause, if that follows from *error*."""
    ca = request.plan.ca.name
    verdict = pauses.after(error, title=title, ca=ca)
    if verdict.code is Code.PAUSED:
        found = store.note(pauses.budget_of(ca), verdict.wait, str(error))
        with _lock:
            _known[found.budget] = _timed(found)


def refresh() -> None:
    """Learn what other workers were told, at most once a second.

    Raises:
        CertrailError: the database is away; what is known stays.
    """
    global _asked
    with _lock:
        if time.monotonic() - _asked < _EVERY_SECONDS:
            return
        _asked = time.monotonic()
    found = {one.budget: _timed(one) for one in store.present()}
    with _lock:
        now = time.monotonic()
        mine = {name: one for name, one in _known.items() if one[1] > now}
        _known.clear()
        _known.update(mine | found)


def of(names: Sequence[str]) -> Pause | None:
    """Return what holds up whoever draws on the budgets *names*, None for nothing."""
    if not _known:
        return None
    with _lock:
        now = time.monotonic()
        present = [replace(one, left=timedelta(seconds=end - now)) for one, end in _known.values()]
    return pauses.last(present, names)


def any_at(title: Title) -> bool:
    """Return whether the step *title* may have to wait: a look at the request tells for what."""
    return bool(_known) and title in pauses.AT_THE_CA


def ca_of(request: Request) -> tuple[str]:
    """Return the budget of the request's CA, for :func:`of`."""
    return (pauses.budget_of(request.plan.ca.name),)


async def keep_known() -> None:
    """:func:`refresh`, quiet and without a thread as long as it is not due."""
    if time.monotonic() - _asked >= _EVERY_SECONDS:
        with suppress(CertrailError):
            await in_lease_thread(refresh)


def _timed(pause: Pause) -> tuple[Pause, float]:
    return pause, time.monotonic() + pause.left.total_seconds()
