"""Why endpoints of a job that runs do not begin."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from certrail.jobs.holdups import Code, HoldUp, Waiting, holdups
from certrail.jobs.waves import Route
from certrail.maintenance import Calendar

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
AGENTS, WEB = Route("agents"), Route("agents", "web01")
NIGHT = Calendar.model_validate(
    {"windows": [{"start": "02:00", "end": "04:00", "timezone": "UTC"}]}
)


def waits(
    count: int, route: Route = AGENTS, profile: str = "shop", *, asked: bool = False
) -> Waiting:
    return Waiting(route, profile, asked, count)


@pytest.mark.parametrize(
    ("waiting", "serving", "calendars", "expected"),
    [
        pytest.param([waits(5)], {AGENTS: 1}, {}, [], id="they only wait for a place"),
        pytest.param([waits(5)], {}, {}, [(Code.NO_WORKER, 5)], id="nobody serves the pool"),
        pytest.param(
            [waits(5), waits(2, WEB), waits(1, WEB, "mail")],
            {AGENTS: 2, WEB: 0},
            {},
            [(Code.NO_WORKER, 3)],
            id="an executor is silent",
        ),
        pytest.param(
            [waits(2, asked=True), waits(1, WEB, asked=True)],
            {AGENTS: 1},
            {},
            [(Code.APPROVAL_PENDING, 3)],
            id="somebody has to be asked, whoever does it then",
        ),
        pytest.param(
            [waits(4), waits(3, profile="mail")],
            {AGENTS: 1},
            {"shop": NIGHT, "mail": Calendar()},
            [(Code.WINDOW_CLOSED, 4)],
            id="only the shop has a window",
        ),
        pytest.param(
            [waits(4)], {}, {"shop": NIGHT}, [(Code.NO_WORKER, 4)], id="counted once, the worse"
        ),
    ],
)
def test_holdups(
    waiting: list[Waiting],
    serving: dict[Route, int],
    calendars: dict[str, Calendar],
    expected: list[tuple[Code, int]],
) -> None:
    """The table of what is told, with the number of endpoints."""
    found = holdups(waiting, serving=serving, calendars=calendars, now=NOW)

    assert [(one.code, one.endpoints) for one in found] == expected


def test_a_closed_window_is_told_with_its_opening_and_an_absent_worker_with_what_to_start() -> None:
    """An operator at night wants to know whether to wait or to act."""
    night: list[HoldUp] = holdups(
        [waits(1)], serving={AGENTS: 1}, calendars={"shop": NIGHT}, now=NOW
    )
    silent = holdups([waits(2, WEB)], serving={}, calendars={}, now=NOW)

    assert [one.until for one in night] == [datetime(2026, 3, 5, 2, 0, tzinfo=UTC)]
    assert night[0].message == "1 endpoint waits for the maintenance window of the profile shop"
    assert "2 endpoints wait for the executor web01" in silent[0].message
    assert "certrail worker --pool agents --name web01" in silent[0].message
