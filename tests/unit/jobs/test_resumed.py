"""Whether it was a person who had the run of a paused job go on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Pending, Running, Scheduled, Suspended

from tasks.bulk_job import was_resumed

BEGAN = datetime(2026, 11, 1, tzinfo=UTC)


def resuming() -> State:
    return Scheduled(name="Resuming")


@pytest.mark.parametrize(
    ("states", "resumed"),
    [
        ([], False),
        ([Scheduled(), Pending(), Running()], False),
        ([Scheduled(), Running(), Suspended(), resuming(), Pending(), Running()], True),
        # Its worker stopped before it rested: for the first time, and after an earlier pause.
        ([Scheduled(), Running(), AwaitingRetry(), Pending(), Running()], False),
        ([Suspended(), resuming(), Running(), AwaitingRetry(), Running()], False),
        ([Suspended(), AwaitingRetry(), Running(), Suspended(), resuming(), Running()], True),
    ],
)
def test_what_had_a_run_scheduled_last(states: list[State], resumed: bool) -> None:
    """In whichever order Prefect's server gives the states."""
    timed = [
        state.model_copy(update={"timestamp": BEGAN + timedelta(seconds=number)})
        for number, state in enumerate(states)
    ]

    assert was_resumed(timed) is resumed
    assert was_resumed(timed[::-1]) is resumed
