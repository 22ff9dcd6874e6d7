"""What a worker writes into its log."""

from __future__ import annotations

import io
import logging

import pytest
from prefect import State
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.states import Failed, Scheduled

from deployments.logs import simplify


@pytest.fixture
def log() -> io.StringIO:
    """Where the console handler of a logger writes to, set up as Prefect does it."""
    stream = io.StringIO()
    logger = logging.getLogger("test.worker.log")
    handler = PrefectConsoleHandler(stream=stream)
    handler.setFormatter(logging.Formatter("%(levelname)s | %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    simplify()
    return stream


def test_lines_are_plain_and_whole(log: io.StringIO) -> None:
    """Neither colours nor line breaks where a terminal would end."""
    line = "[certificate installed] " + "x" * 300

    logging.getLogger("test.worker.log").info(line)

    assert log.getvalue() == f"INFO | {line}\n"


def test_the_end_of_a_step_is_told_once(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own line has the detail already; a failure's line is kept."""
    steps = logging.getLogger("prefect.task_runs")
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(steps, "handlers", [handler])
    monkeypatch.setattr(steps, "propagate", False)

    for line in (
        "Finished in state Completed('2 files')",
        "Task run failed with state: Failed(message='no', type=FAILED, result=None)",
        "Finished in state Failed('no')",
    ):
        steps.warning(line)

    assert said == ["Finished in state Failed('no')"]


def test_a_run_that_comes_back_is_no_error(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect logs every end but Completed as an error, also that of a run which only waits."""
    runs = logging.getLogger("prefect.flow_runs")
    levels: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: levels.append(record.levelname)  # type: ignore[method-assign]
    monkeypatch.setattr(runs, "handlers", [handler])
    monkeypatch.setattr(runs, "propagate", False)

    ends: list[State[None]] = [
        Scheduled(name="AwaitingPlace", message="a place"),
        Failed(message="no"),
    ]
    for state in ends:
        runs.error(f"Finished in state {state}")

    assert levels == ["INFO", "ERROR"]
