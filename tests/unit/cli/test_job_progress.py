"""A bulk job on the screen: what somebody who was woken up reads first fits on it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from rich.console import Console

from certrail.cli import _job_progress
from certrail.jobs.holdups import Code, HoldUp
from certrail.jobs.status import Counts, JobStatus
from certrail.jobs.threshold import Threshold, Wave
from certrail.model import Action
from certrail.store.job_results import Cause
from certrail.store.job_view import JobView
from certrail.store.jobs import Job

BEGAN = datetime.now(UTC) - timedelta(minutes=5)
RUNNING = Job(
    id=uuid4(),
    name="spring",
    action=Action.RENEW,
    status=JobStatus.RUNNING,
    concurrency=20,
    threshold=Threshold(percent=2.0),
    canary=True,
    in_window=False,
    requested_by="ops@host",
    flow_run_id=uuid4(),
    run_count=1,
    lease_owner=None,
    is_held=True,
    pause_requested=False,
    cancel_requested=False,
    stop_code=None,
    stop_message=None,
    created_at=BEGAN,
    scheduled_at=None,
    started_at=BEGAN,
    ended_at=None,
)


def waves(done: int, at_work: int, to_come: int) -> tuple[Wave, ...]:
    counts = [
        *[Counts(total=50, successful=49, failed=1)] * done,
        *[Counts(total=50, successful=9, in_progress=20, pending=21)] * at_work,
        *[Counts(total=50, pending=50)] * to_come,
    ]
    return tuple(
        Wave(number, canary=number == 1, counts=one) for number, one in enumerate(counts, start=1)
    )


def view(*, waves: tuple[Wave, ...], **more: tuple[object, ...]) -> JobView:
    found = {"causes": (), **more}
    return JobView(
        job=RUNNING,
        counts=Counts.together(wave.counts for wave in waves),
        waves=waves,
        flow_run_url="http://prefect.test/runs/flow-run/1",
        **found,  # type: ignore[arg-type]
    )


def shown(what: JobView, capsys: pytest.CaptureFixture[str]) -> list[str]:
    _job_progress.show(what)
    return capsys.readouterr().out.splitlines()


def test_hundreds_of_waves_are_told_in_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """What is done, what runs and what is to come; the canary by itself."""
    lines = shown(view(waves=waves(150, 1, 49)), capsys)

    assert lines[0] == "job spring: Running"
    assert (
        lines[1] == "endpoints 2471 pending, 20 in progress, 7359 successful, 150 failed of 10000"
    )
    assert lines[2] == "asked for renew, 20 at a time, no more once over 2% failed; by ops@host"
    assert lines[3:7] == [
        "  wave 1 (canary), done: 49 successful, 1 failed of 50",
        "  waves 2 to 150, done: 7301 successful, 149 failed of 7450",
        "  wave 151, running: 21 pending, 20 in progress, 9 successful of 50",
        "  waves 152 to 200, pending: 2450 pending of 2450",
    ]


def test_a_few_waves_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    """As they were asked for."""
    lines = shown(view(waves=waves(2, 1, 2)), capsys)

    assert [line.split(",")[0].strip() for line in lines if line.startswith("  wave")] == [
        "wave 1 (canary)",
        "wave 2",
        "wave 3",
        "wave 4",
        "wave 5",
    ]


def test_why_it_waits_and_why_endpoints_failed(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure names one endpoint, and how many other messages there are to read."""
    cause = Cause(
        error="ActivationRefused",
        step="Certificate installed",
        count=3,
        different=2,
        example="a.test:443",
        message="a.test: unknown directive",
        remedy="Correct it.",
    )
    held = HoldUp(Code.NO_WORKER, 4, "the executor web01")

    lines = shown(view(waves=waves(1, 1, 0), causes=(cause,), held_up_by=(held,)), capsys)

    assert "waits     4 endpoints wait for the executor web01" in lines
    assert "failed    3 × ActivationRefused in Certificate installed" in lines
    assert "     cause, of a.test:443, one of 2 different ones: a.test: unknown directive" in lines


def test_its_commands_are_in_one_piece_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a command that is pasted is another command, or none."""
    paper = Console(width=80, highlight=False, emoji=False, markup=False)
    monkeypatch.setattr(_job_progress, "is_terminal", lambda: True)
    monkeypatch.setattr(_job_progress, "console", lambda: paper)
    cause = Cause("ProbeFailed", "Testing installation", 1, 1, "a.test:443", "old", "Look.")
    name = "spring-renewal-of-the-shops"
    ended = replace(RUNNING, name=name, status=JobStatus.COMPLETED)

    with paper.capture() as captured:
        _job_progress.show(replace(view(waves=waves(2, 0, 0), causes=(cause,)), job=ended))

    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert f"When it is corrected: certrail job retry {name}" in lines
    assert f"certrail endpoint list --view failed --job {name}" in lines
    assert max(map(len, lines)) <= 80
