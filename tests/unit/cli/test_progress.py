"""A request on a terminal of 80 columns, as one reads it at three in the morning."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from certrail.cli import _progress
from certrail.store.request_view import RequestView
from certrail.tracker import Status, StepStatus
from tests.support.shown_requests import shown_request

CAUSE = (
    "nginx on web01 refuses its configuration as it is, before anything was changed: unknown "
    'directive "sever_name" in /etc/nginx/sites-enabled/www.example.test.conf:14'
)
RETRY = "certrail request retry 3f2a9c41 --wait"


def shown(view: RequestView, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the lines that a terminal of 80 columns shows."""
    paper = Console(width=80, highlight=False, emoji=False, markup=False)
    monkeypatch.setattr(_progress, "is_terminal", lambda: True)
    monkeypatch.setattr(_progress, "console", lambda: paper)
    with paper.capture() as captured:
        _progress.show(view)
    return [line.rstrip() for line in captured.get().splitlines()]


def test_what_to_do_is_below_the_steps_and_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is broken in two is one that cannot be pasted."""
    lines = shown(shown_request(Status.AUTOMATION_FAILED, cause=CAUSE), monkeypatch)

    (step,) = [number for number, line in enumerate(lines) if "✗ 4. Certificate installed" in line]
    cause = next(number for number, line in enumerate(lines) if line.startswith("cause: nginx"))
    assert step < cause
    assert len([line for line in lines if "cause: " in line]) == 1
    remedy = lines.index("remedy: Correct the file, then retry.")
    assert " ".join(lines[cause:remedy]) == f"cause: {CAUSE}"
    assert lines[remedy + 1] == "a retry alone does not help"
    assert lines[-1] == f"When it is corrected: {RETRY}"
    assert max(map(len, lines)) <= 80


def test_where_a_retry_can_help_it_is_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that was away needs no correction."""
    view = shown_request(Status.AUTOMATION_FAILED, cause="ns1.example.test does not answer")
    steps = tuple(
        replace(one, retryable=True) if one.status is StepStatus.FAILED else one
        for one in view.steps
    )

    lines = shown(replace(view, steps=steps), monkeypatch)

    assert "a retry can help" in lines
    assert lines[-1] == f"To try again: {RETRY}"
