"""Requests that wait for the same server share one test and one reload.

Changes on a machine are made one after the other. While one request has its
turn, others of this process queue up behind it; whoever gets the next turn
takes along all that wait for the same server. Each keeps its own journal and
tests its own site when its turn comes, where it finds its part done.

If the server refuses the lot, everything is put back and each request goes on
by itself: then the one that is wrong is the only one that fails.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from certrail import log
from certrail.connectors import InstallTarget, SwitchesTogether
from certrail.errors import CertrailError
from certrail.journal import Effect
from certrail.model import Staged
from certrail.store.database import locked

_MOST = 100
_guard = threading.Lock()
_waiting: dict[str, list[Ticket]] = {}
_Put = tuple[SwitchesTogether, Staged, Effect]


@dataclass(eq=False, slots=True)
class Ticket:
    """A request that waits for its turn.

    Attributes:
        target: its own way to the server.
        stage: stages its certificate, once.
        begin: begins the effect of activating, to be recorded later.
        staged: what was staged, by whoever did it.
    """

    target: InstallTarget
    stage: Callable[[], Staged]
    begin: Callable[[Staged], Effect]
    staged: Staged | None = None


@contextmanager
def turn(name: str, ticket: Ticket) -> Iterator[None]:
    """Hold the lock *name* while the block runs; on the way in, take along who waits for it."""
    with _guard:
        _waiting.setdefault(name, []).append(ticket)
    try:
        with locked(name):
            with _guard:
                group = _group(_waiting[name], ticket)
                for one in group:
                    _waiting[name].remove(one)
            if len(group) > 1:
                _switch(group)
            yield
    finally:
        with _guard, suppress(ValueError):
            _waiting[name].remove(ticket)


def waiting(name: str) -> int:
    """Return how many requests of this process wait for *name* and were not taken along yet."""
    with _guard:
        return len(_waiting.get(name, ()))


def _group(queue: list[Ticket], first: Ticket) -> list[Ticket]:
    """Return *first* and who can be taken along; nobody if it was itself."""
    if first not in queue:
        return []
    mine = first.target
    if not isinstance(mine, SwitchesTogether) or not mine.group:
        return [first]
    others = [
        one
        for one in queue
        if one is not first
        and isinstance(one.target, SwitchesTogether)
        and one.target.group == mine.group
    ]
    return [first, *others[: _MOST - 1]]


def _switch(group: list[Ticket]) -> None:
    """Stage and put all of *group*, then let the server take it over; failing that, nothing."""
    leader = group[0].target
    assert isinstance(leader, SwitchesTogether)
    try:
        leader.must_be_sound()
    except CertrailError:
        return  # Each will find that by itself, and say it.
    put: list[_Put] = []
    places: set[str] = set()
    for one in group:
        target = one.target
        assert isinstance(target, SwitchesTogether)
        target.is_sound = True
        try:
            one.staged = one.stage()
            effect = one.begin(one.staged)
            # A second change of one place would begin by undoing the first.
            place = str(one.staged.data.get("directory", one.staged.site))
            if effect.outcome is None and place not in places and target.put(one.staged):
                places.add(place)
                put.append((target, one.staged, effect))
        except CertrailError as exc:
            log.logger.info("left to its own turn: %s", exc)
        finally:
            target.is_sound = False
    if not put:
        return
    reloading = False
    try:
        words = leader.accepts()
        if not words:
            reloading = True
            words = leader.reload()
    except CertrailError as exc:
        words = str(exc)
    if words:
        log.logger.warning("%d sites at once refused, now one by one: %s", len(put), words)
        _put_back(put, leader if reloading else None)
        return
    told = leader.told + (f", with {len(put) - 1} more" if len(put) > 1 else "")
    for changed, staged, effect in put:
        line = changed.keep(told)
        effect.record({"line": line})
        log.effect("install.activate", site=staged.site, what=line)


def _put_back(put: list[_Put], reload: SwitchesTogether | None) -> None:
    # What cannot be put back now is noted on the host; the turn of that site begins with it.
    for target, staged, _ in reversed(put):
        try:
            target.put_back()
        except CertrailError as exc:
            log.logger.warning("%s was not put back yet: %s", staged.site, exc)
    if reload is None:
        return
    try:
        words = reload.reload()
    except CertrailError as exc:
        words = str(exc)
    if words:
        log.logger.warning("reload after putting everything back: %s", words)
