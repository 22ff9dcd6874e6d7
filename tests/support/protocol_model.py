"""The protocol by which workers share a request, small enough to walk through every state of it.

Two runs of one request, a reconciler, crashes, leases that run out under a
slow worker, a worker that is stopped and hands its request back. Each step is
one transaction or one call to the CA, as in :mod:`certrail.steps.ordering`,
:mod:`certrail.store.request_runs` and :mod:`certrail.store.request_ends`; the
state is immutable, so all orders of all steps are walked. A :class:`Protocol`
without one of its parts shows what that part is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

RUNS = (0, 1)


@dataclass(frozen=True, slots=True)
class Protocol:
    """What the protocol consists of; everything is switched on in Certrail.

    Attributes:
        lease: a run begins only when nobody holds the request.
        unique_order: an index allows one live order for each request.
        named_lock: one at a time opens an order for the same names.
        asks_ca: who finds an intent without outcome asks the CA first.
        intent_first: the intent is committed before the effect.
        expires: leases run out.
        reconciles: a request that nobody holds is run again.
        holder_ends: only who holds a request ends it.
    """

    lease: bool = True
    unique_order: bool = True
    named_lock: bool = True
    asks_ca: bool = True
    intent_first: bool = True
    expires: bool = True
    reconciles: bool = True
    holder_ends: bool = True


class At(IntEnum):
    """What a run does next."""

    NOTHING = 0
    TAKE = 1
    BEGIN = 2
    RESERVE = 3
    LOCK = 4
    INTEND = 5
    ASK = 6
    OPEN = 7
    NOTE = 8
    UNLOCK = 9
    FINISH = 10
    LOST = 11
    HAND_BACK = 12


AT_WORK = range(At.RESERVE, At.LOST)


@dataclass(frozen=True, slots=True)
class Run:
    """One run in its process: what it does next and what it has in memory."""

    at: At = At.NOTHING
    row: int = 0
    order: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """An order row with its journal row: reserved, intent written, the CA's order noted."""

    intent: bool = False
    order: int = 0


@dataclass(frozen=True, slots=True)
class World:
    """Database, CA and both processes.

    Attributes:
        rows: order rows; more than one only where the index is missing.
        holder: the run in the lease, None where it is free; *expired* where it ran out.
        lock: the run that has the named lock.
        orders: how many the CA has.
        status: ``active``, ``done`` or ``failed``.
        ended_by_other: somebody else than the holder ended the request as failed.
    """

    rows: tuple[Row, ...] = ()
    holder: int | None = None
    expired: bool = False
    lock: int | None = None
    orders: int = 0
    status: str = "active"
    ended_by_other: bool = False
    runs: tuple[Run, Run] = (Run(At.TAKE), Run(At.TAKE))


def successors(protocol: Protocol, world: World) -> Iterator[World]:
    """Yield every world that one step of anybody leads to."""
    for me in RUNS:
        run = world.runs[me]
        if run.at is At.NOTHING:
            # The reconciler sees what nobody holds: it has another run started.
            if protocol.reconciles and world.status == "active" and _is_free(world):
                yield _go(world, me, Run(At.TAKE))
            continue
        yield from _step(protocol, world, me, run)
        # SIGKILL: memory and locks of the process are gone, its lease stays.
        yield _go(replace(world, lock=None if world.lock == me else world.lock), me, Run())
    if protocol.expires and world.holder is not None and not world.expired:
        yield replace(world, expired=True)


def _step(protocol: Protocol, world: World, me: int, run: Run) -> Iterator[World]:
    match run.at:
        case At.TAKE:
            if world.status != "active":
                yield _go(world, me, Run())
            elif not protocol.lease or _is_free(world):
                yield _go(replace(world, holder=me, expired=False), me, Run(At.BEGIN))
        case At.BEGIN:
            holds = world.holder == me or not protocol.lease
            yield _go(world, me, Run(At.RESERVE if holds else At.LOST))
            if holds:
                yield _go(world, me, Run(At.HAND_BACK))
        case At.RESERVE:
            if world.rows and (protocol.unique_order or any(one.order for one in world.rows)):
                yield _go(world, me, Run(At.LOCK, row=0))
            else:
                if world.rows:  # without the index: not seen, since not yet committed
                    yield _go(world, me, Run(At.LOCK, row=0))
                if len(world.rows) < 2:
                    rows = (*world.rows, Row())
                    yield _go(replace(world, rows=rows), me, Run(At.LOCK, row=len(rows) - 1))
        case At.LOCK:
            if not protocol.named_lock:
                yield _go(world, me, replace(run, at=At.INTEND))
            elif world.lock is None:
                yield _go(replace(world, lock=me), me, replace(run, at=At.INTEND))
        case At.INTEND:
            row = world.rows[run.row]
            if row.order:
                yield _go(world, me, replace(run, at=At.UNLOCK, order=row.order))
            elif row.intent:
                yield _go(world, me, replace(run, at=At.ASK))
            else:
                written = _row(world, run.row, replace(row, intent=protocol.intent_first))
                yield _go(written, me, replace(run, at=At.OPEN))
        case At.ASK:
            known = {one.order for one in world.rows}
            lost = [n for n in range(1, world.orders + 1) if n not in known]
            if protocol.asks_ca and lost:
                yield _go(world, me, replace(run, at=At.NOTE, order=lost[0]))
            else:
                yield _go(world, me, replace(run, at=At.OPEN))
        case At.OPEN:
            if world.orders < 2:
                opened = replace(world, orders=world.orders + 1)
                yield _go(opened, me, replace(run, at=At.NOTE, order=opened.orders))
        case At.NOTE:
            row = Row(intent=True, order=run.order)
            yield _go(_row(world, run.row, row), me, replace(run, at=At.UNLOCK))
        case At.UNLOCK:
            free = replace(world, lock=None if world.lock == me else world.lock)
            yield _go(free, me, replace(run, at=At.FINISH))
        case At.FINISH:
            yield _go(_ended(protocol, world, me, "done"), me, Run())
        case At.LOST:
            # It finds that another run holds the request, and ends as a failed run does.
            yield _go(_ended(protocol, world, me, "failed"), me, Run())
        case At.HAND_BACK:
            if world.holder == me:
                world = replace(world, holder=None, expired=False)
            yield _go(world, me, Run())


def _ended(protocol: Protocol, world: World, me: int, status: str) -> World:
    may = world.holder == me or (not protocol.holder_ends and world.holder is None)
    if world.status != "active" or not (may or not protocol.lease):
        return world
    other = status == "failed" and world.holder != me
    return replace(world, status=status, holder=None, expired=False, ended_by_other=other)


def _is_free(world: World) -> bool:
    return world.holder is None or world.expired


def _go(world: World, me: int, run: Run) -> World:
    first, second = world.runs
    return replace(world, runs=(run, second) if me == 0 else (first, run))


def _row(world: World, number: int, row: Row) -> World:
    rows = list(world.rows)
    rows[number] = row
    return replace(world, rows=tuple(rows))


@dataclass(frozen=True, slots=True)
class Explored:
    """Every world that can come about, and what is wrong in some of them.

    Attributes:
        count: how many worlds there are.
        doubled: worlds in which the CA has a second order.
        lost: worlds from which no order of steps leads to the end of the request.
        usurped: worlds in which a run ended a request that it did not hold.
        left: worlds in which the request is over and a lease or a lock of nobody is left.
        crowded: worlds in which both runs are at work.
    """

    count: int
    doubled: int
    lost: int
    usurped: int
    left: int
    crowded: int


def explore(protocol: Protocol) -> Explored:
    """Walk through every order of every step of everybody."""
    start = World()
    before: dict[World, list[World]] = {start: []}
    waiting = [start]
    while waiting:
        world = waiting.pop()
        for after in successors(protocol, world):
            if after not in before:
                before[after] = []
                waiting.append(after)
            before[after].append(world)
    # Backwards from each end: what is not met can never come to one.
    saved = [world for world in before if world.status != "active"]
    reached = set(saved)
    while saved:
        for world in before[saved.pop()]:
            if world not in reached:
                reached.add(world)
                saved.append(world)
    quiet = [
        world
        for world in before
        if world.status != "active" and all(run.at is At.NOTHING for run in world.runs)
    ]
    return Explored(
        count=len(before),
        doubled=sum(world.orders > 1 for world in before),
        lost=len(before) - len(reached),
        usurped=sum(world.ended_by_other for world in before),
        left=sum(world.lock is not None or world.holder is not None for world in quiet),
        crowded=sum(all(run.at in AT_WORK for run in world.runs) for world in before),
    )
