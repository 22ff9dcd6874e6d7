"""A request on the screen: its steps, and following them live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from certrail.cli._output import console, echo_table, is_terminal, local, status_text, style_of
from certrail.errors import InvalidRequest
from certrail.log import plain
from certrail.store.request_view import RequestView
from certrail.store.steps import Step
from certrail.tracker import ACTIVE, Status, StepStatus
from certrail.wait import Pending, until

if TYPE_CHECKING:
    from rich.console import RenderableType

_LOOK_EVERY = timedelta(seconds=0.5)
_LONGEST = timedelta(days=370)
_NOBODY_TOOK_IT = timedelta(seconds=20)
_SHORT = 8
_SIGNS = {
    StepStatus.PENDING: "·",
    StepStatus.RUNNING: "▶",
    StepStatus.COMPLETED: "✓",
    StepStatus.SKIPPED: "↷",
    StepStatus.FAILED: "✗",
    StepStatus.CANCELLED: "■",
}


def show(view: RequestView) -> None:
    """Print a request with its steps."""
    if is_terminal():
        console().print(_panel(view))
        _show_history(view)
        return
    for line in _head(view):
        click.echo(line)
    for step in view.steps:
        click.echo(_step_line(step))
        for line in _why(step):
            click.echo(f"     {line}")
    for line in _foot(view):
        click.echo(line)
    _show_history(view)


def _show_history(view: RequestView) -> None:
    if view.history is None:
        return
    rows = [
        {
            "step": f"{attempt.number}. {view.steps[attempt.number - 1].title}",
            "run": attempt.run,
            "status": attempt.status,
            "began": local(attempt.started_at),
            "took": _took(attempt.started_at, attempt.ended_at),
            "what": attempt.cause or attempt.detail or "",
        }
        for attempt in view.history
    ]
    click.echo("\nEvery try, oldest first:" if rows else "\nNothing was tried yet.")
    if rows:
        echo_table([(name, name) for name in rows[0]], rows)


def follow(look: Callable[[], RequestView]) -> RequestView:
    """Show a request's progress until it is over and return how it ended.

    A live table on a terminal, one line for each change elsewhere.
    """
    if is_terminal():
        return _follow_live(look)
    return _follow_lines(look)


def wait(look: Callable[[], RequestView]) -> RequestView:
    """Wait, printing nothing, until a request is over."""

    def ask() -> RequestView | Pending:
        view = look()
        return view if view.is_over else Pending()

    return _until_over(ask)


def _follow_live(look: Callable[[], RequestView]) -> RequestView:
    from rich.live import Live

    with Live(console=console(), auto_refresh=False, transient=False) as live:

        def ask() -> RequestView | Pending:
            view = look()
            live.update(_panel(view), refresh=True)
            return view if view.is_over else Pending()

        return _until_over(ask)


def _follow_lines(look: Callable[[], RequestView]) -> RequestView:
    said: set[tuple[int, str]] = set()

    def ask() -> RequestView | Pending:
        view = look()
        for news in _news(view):
            if news not in said:
                said.add(news)
                click.echo(news[1])
        return view if view.is_over else Pending()

    view = _until_over(ask)
    for line in _foot(view):
        click.echo(line)
    return view


def _until_over(ask: Callable[[], RequestView | Pending]) -> RequestView:
    return until(
        ask,
        timeout=_LONGEST,
        interval=_LOOK_EVERY,
        slowest=_LOOK_EVERY,
        late=lambda: InvalidRequest("the request did not end within a year"),
    )


def _news(view: RequestView) -> Iterator[tuple[int, str]]:
    """Yield lines with the number of the try they are about, so that none is told twice."""
    request = view.request
    yield 0, f"{request.action} {plain(request.location)}: request {request.id}"
    if view.flow_run_url:
        yield 0, f"Prefect: {view.flow_run_url}"
    if view.waits_for is not None:
        yield 0, f"waits: {plain(view.waits_for.message)}"
    if hint := _hint(view):
        yield 0, hint
    for step in view.steps:
        if step.status is not StepStatus.PENDING:
            for line in (_step_line(step), *_why(step)):
                yield step.attempts, line
    if view.is_over:
        yield 0, request.status.text


def _head(view: RequestView) -> Iterator[str]:
    request = view.request
    yield f"{request.action} {plain(request.location)}: {request.status.text}"
    yield f"request   {request.id}"
    yield f"why       {plain(request.reason.message)}"
    if view.job_name:
        yield f"job       {plain(view.job_name)}"
    yield f"workflow  {request.workflow}, profile {plain(request.plan.profile)}"
    if request.scheduled_at:
        yield f"scheduled {local(request.scheduled_at)}"
    if request.started_at:
        ended = f", ended {local(request.ended_at)}" if request.ended_at else ""
        yield f"started   {local(request.started_at)}{ended}"
    if request.cancel_requested and not view.is_over:
        yield "asked to stop at its next safe point"
    if view.waits_for is not None:
        yield f"waits     {plain(view.waits_for.message)}"
    if hint := _hint(view):
        yield hint


def _foot(view: RequestView) -> Iterator[str]:
    request = view.request
    if view.places:
        done = sum(place.is_installed for place in view.places)
        yield f"applied on {done} of {len(view.places)}"
        for place in view.places:
            mark = "✓" if place.is_installed else "·"
            told = f": {plain(place.detail)}" if place.detail else ""
            yield f"  {mark} {plain(place.name)}{told}"
    if view.certificate:
        one = view.certificate
        yield (
            f"certificate {plain(one.serial)} by {plain(one.issuer)}, valid until "
            f"{local(one.not_after)}"
        )
    if view.flow_run_url:
        yield f"Prefect: {view.flow_run_url}"
    if request.status is Status.AUTOMATION_FAILED:
        failed = view.failed_step
        when = "To try again:" if failed and failed.retryable else "When it is corrected:"
        # Short, so that no terminal breaks it in two.
        yield f"{when} certrail request retry {str(request.id)[:_SHORT]} --wait"


def _hint(view: RequestView) -> str:
    request = view.request
    if request.status is not Status.AUTOMATION_REQUESTED:
        return ""
    if datetime.now(UTC) - request.created_at < _NOBODY_TOOK_IT or request.run_count:
        return ""
    return "no worker has taken it yet; `certrail doctor` says whether one runs"


def _step_line(step: Step) -> str:
    tries = f" (try {step.attempts})" if step.attempts > 1 else ""
    detail = f": {plain(step.detail)}" if step.detail else ""
    return f"{_SIGNS[step.status]} {step.number}. {step.title}: {step.status}{tries}{detail}"


def _why(step: Step) -> Iterator[str]:
    if step.cause:
        yield f"cause: {plain(step.cause)}"
    if step.remedy:
        yield f"remedy: {plain(step.remedy)}"
    if step.retryable is not None and step.status is StepStatus.FAILED:
        yield "a retry can help" if step.retryable else "a retry alone does not help"


def _panel(view: RequestView) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    request = view.request
    first, *rest = _head(view)
    title = Text(first.rsplit(": ", 1)[0] + ": ", style="bold")
    title.append_text(status_text(request.status))
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", style="dim", no_wrap=True)
    below: list[Text] = []
    for step in view.steps:
        style = style_of(step.status)
        mark = Text(f"{_SIGNS[step.status]} {step.number}. {step.title}", style=style)
        said = plain(step.detail) if step.detail else str(step.status)
        what = Text(said, style="dim" if step.status is StepStatus.PENDING else "")
        why = [Text(line, style=_colour(line)) for line in _why(step)]
        if step.status is StepStatus.FAILED:
            # Over the whole width: it is what one came to read.
            below += why
        else:
            what = Text("\n").join([what, *why])
        table.add_row(mark, what, _duration(step))
    parts: list[RenderableType] = [title, *(Text(line, style="dim") for line in rest), table]
    if below:
        parts += [Text(), *below, Text()]
    parts += [Text(line) for line in _foot(view)]
    if request.status in ACTIVE and not view.flow_run_url:
        parts.append(Text("no flow run yet", style="dim"))
    return Group(*parts)


def _colour(line: str) -> str:
    return {"cause": "red", "remedy": "bold"}.get(line.partition(":")[0], "")


def _duration(step: Step) -> str:
    if step.started_at is None:
        return ""
    tries = f"try {step.attempts}, " if step.attempts > 1 else ""
    return f"{tries}{_took(step.started_at, step.ended_at)}"


def _took(start: datetime, end: datetime | None) -> str:
    seconds = max(0.0, ((end or datetime.now(UTC)) - start).total_seconds())
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
