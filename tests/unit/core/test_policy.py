"""Decisions, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from certrail.configuration.profile import Approval
from certrail.policy import (
    Repair,
    RunFacts,
    Undo,
    approval_of_retry,
    repair,
    undo_installation,
)

NOW = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Previous:
    not_after: datetime
    revoked_at: datetime | None = None


@pytest.mark.parametrize(
    ("previous", "expected"),
    [
        pytest.param(None, Undo.RESTORE, id="nothing was there"),
        pytest.param(Previous(NOW + timedelta(seconds=1)), Undo.RESTORE, id="a second left"),
        pytest.param(Previous(NOW), Undo.KEEP, id="expires now"),
        pytest.param(Previous(NOW - timedelta(days=1)), Undo.KEEP, id="expired"),
        pytest.param(Previous(NOW + timedelta(days=9), NOW), Undo.KEEP, id="revoked"),
    ],
)
def test_never_back_to_a_certificate_that_clients_refuse(
    previous: Previous | None, expected: Undo
) -> None:
    """A failed test must not replace a doubtful certificate by a surely bad one."""
    assert expected is undo_installation(previous, NOW).code


WANTED = Approval(by="anyone")


@pytest.mark.parametrize(
    ("before", "present", "obtains", "expected"),
    [
        pytest.param({"by": "anyone"}, WANTED, True, WANTED, id="nobody said anything"),
        pytest.param({"decision": "approved"}, WANTED, True, None, id="approved before"),
        pytest.param({"by": "anyone"}, None, True, None, id="no longer asked for"),
        pytest.param(None, WANTED, True, WANTED, id="asked for since"),
        pytest.param(None, WANTED, False, None, id="it has its certificate"),
        pytest.param(None, None, True, None, id="never asked for"),
    ],
)
def test_a_retry_waits_for_the_approval_that_is_missing(
    before: dict[str, str] | None,
    present: Approval | None,
    obtains: bool,
    expected: Approval | None,
) -> None:
    """What a new request would wait for, but for what somebody has agreed to."""
    assert expected is approval_of_retry(before, present, obtains=obtains)


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        pytest.param(RunFacts(True, "CRASHED", MINUTE), Repair.LEAVE, id="alive by its lease"),
        pytest.param(RunFacts(False, None, timedelta(0)), Repair.START, id="no run was made"),
        pytest.param(RunFacts(False, "SCHEDULED", MINUTE), Repair.LEAVE, id="waits for its time"),
        pytest.param(RunFacts(False, "PAUSED", MINUTE), Repair.LEAVE, id="waits for a person"),
        pytest.param(RunFacts(False, "RUNNING", MINUTE), Repair.RUN_AGAIN, id="worker died"),
        pytest.param(RunFacts(False, "PENDING", MINUTE), Repair.RUN_AGAIN, id="died at the start"),
        pytest.param(RunFacts(False, "CRASHED", MINUTE), Repair.RUN_AGAIN, id="called crashed"),
        pytest.param(RunFacts(False, "RUNNING", timedelta(0)), Repair.LEAVE, id="just beginning"),
        pytest.param(RunFacts(False, "CRASHED", MINUTE, True), Repair.CANCEL, id="asked to stop"),
        pytest.param(RunFacts(True, "RUNNING", MINUTE, True), Repair.LEAVE, id="is stopping"),
        pytest.param(RunFacts(False, "CANCELLED", MINUTE), Repair.CANCEL, id="called off"),
    ],
)
def test_repair_goes_by_the_lease_before_prefects_word(facts: RunFacts, expected: Repair) -> None:
    """Prefect marks live runs as crashed and dead ones as running; the lease does not lie."""
    assert expected is repair(facts)
