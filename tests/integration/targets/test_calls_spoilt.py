"""Every call that changes something at an API, answered late, twice, by half, with 502 or never.

It is done each time; what is lost is the answer. The step is tried again until it is through.
"""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from pathlib import Path
from uuid import UUID

import pytest

from certrail.errors import CertrailError
from certrail.steps import installation
from certrail.tracker import StepStatus
from tests.support.faulty_proxy import Fault
from tests.support.installing import request_for, work_of
from tests.support.process import wait_for
from tests.support.target_calls import Spoiler, Way, way_to
from tests.support.targets import LONG, TARGETS, Target

FAULTS = (
    Fault.DELAYED,
    Fault.DOUBLED,
    Fault.REFUSED_AFTER,
    Fault.TRUNCATED,
    Fault.STALLED,
)
# Their protocols have no status of a gateway between, and TCP carries everything once.
_NO_HTTP = ("target-haproxy", "target-redis")
_OF_HTTP = (Fault.DOUBLED, Fault.REFUSED_AFTER)
# Each message of WS-Management has an id of its own, and a second copy of it is the service's to
# refuse; what it says then is documented nowhere.
_NO_COPIES = ("target-iis", Fault.DOUBLED)
CASES = [
    (target, fault)
    for target in TARGETS
    for fault in FAULTS
    if (target.slug, fault) != _NO_COPIES and not (target.slug in _NO_HTTP and fault in _OF_HTTP)
]
_SHORT = timedelta(seconds=0.5)
_MORE_TRIES = 10


@pytest.mark.parametrize(
    ("target", "fault"), CASES, ids=[f"{target} {fault.name.lower()}" for target, fault in CASES]
)
def test_every_call_that_changes_something(
    database_url: str, target: Target, tmp_path: Path, fault: Fault
) -> None:
    """The first of each kind is spoilt: a client sees the old or the new one, the new in the end.

    And after another renewal, without faults, nothing is left of it.
    """
    numbers = count()
    with way_to(target, tmp_path) as way:
        way.spoil(usual := Spoiler())
        install(way, next(numbers))
        kept = way.kept()
        way.spoil(spoiler := Spoiler(fault))

        told = install(way, next(numbers), deadline=_SHORT if fault is Fault.STALLED else LONG)

        way.spoil(Spoiler())

        def is_tidy() -> bool:
            install(way, next(numbers))
            return way.kept() == kept

        # AWS tells by the second what is older.
        wait_for(is_tidy, "nothing is left")
        assert usual.kinds.keys() <= spoiler.kinds.keys()
        assert all(spoiler.kinds.values())
        assert spoiler.spoilt >= 2, spoiler.kinds
        if fault is Fault.DELAYED:
            assert told == []
        for one in told:
            assert one.retryable, one
            assert one.remedy, one


def install(way: Way, number: int, deadline: timedelta = LONG) -> list[CertrailError]:
    """Install a new certificate, however many tries it takes; returns what they failed with."""
    before, bundle = way.served(), way.ca.bundle(*way.names)
    request = request_for(way.ca, bundle, way.port, f"lb/{number}")
    told: list[CertrailError] = []
    while (failed := tried(way, request, deadline)) is not None:
        told.append(failed)
        assert way.served() in (before, bundle.chain.fingerprint)
        assert len(told) < 2 * _MORE_TRIES, told
        # A machine that is busy needs longer for what is not stalled.
        deadline = min(LONG, deadline * 1.1)
    assert way.served() == bundle.chain.fingerprint
    return told


def tried(way: Way, request: UUID, deadline: timedelta) -> CertrailError | None:
    """Run the step once and drop what is no longer needed; returns what it failed with."""
    try:
        outcome = installation.install(work_of(request), lambda: way.open(deadline))
        installation.accept(work_of(request), lambda: way.open(deadline))
    except CertrailError as exc:
        return exc
    assert outcome.status is StepStatus.COMPLETED
    return None
