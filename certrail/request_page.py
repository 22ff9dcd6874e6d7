"""What an operator needs to see of a request that is over, as one page of Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from certrail.log import plain
from certrail.store.request_view import RequestView
from certrail.store.steps import Step
from certrail.tracker import StepStatus
from certrail.words import quoted

_ID = 8
_MARKS = {StepStatus.COMPLETED: "✓ ", StepStatus.FAILED: "✗ "}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def page(view: RequestView, earlier: Sequence[RequestView]) -> str:
    """Return the page of a request: why it ended so, what to do, its steps and its neighbours.

    Args:
        view: the request.
        earlier: other requests of its endpoint, newest first.
    """
    parts = [_heading(view), *_why(view), _commands(view), _steps(view), _facts(view)]
    if links := _links(earlier):
        parts.append(links)
    return "\n\n".join(parts) + "\n"


def _heading(view: RequestView) -> str:
    request = view.request
    return f"# {shown(request.flow_run_name)}: {request.status.text.lower()}"


def _why(view: RequestView) -> list[str]:
    failed = view.failed_step
    if failed is None:
        return []
    again = (
        "A retry may help without any change." if failed.retryable else "A retry alone won't help."
    )
    return [
        f"**Step {failed.number}, {failed.title}, failed:** {shown(failed.cause)}",
        f"**What to do:** {shown(failed.remedy)} {again}",
    ]


def _facts(view: RequestView) -> str:
    request, plan = view.request, view.request.plan
    rows = [
        ("Endpoint", f"`{request.location}`"),
        ("Names", shown(", ".join(plan.names))),
        ("Profile", shown(plan.profile)),
        ("Certificate authority", shown(plan.ca.name)),
        ("Target", shown(plan.target.name) if plan.target else "none"),
        ("Why", shown(request.reason.message)),
        ("Request", f"`{request.id}`"),
    ]
    if view.certificate is not None:
        obtained = view.certificate
        rows.append(
            (
                "Certificate",
                f"serial `{obtained.serial}` by {shown(obtained.issuer)}, "
                f"valid to {_time(obtained.not_after)}",
            )
        )
    return "\n".join(
        ["| request | |", "| --- | --- |", *(f"| {name} | {text} |" for name, text in rows)]
    )


def _steps(view: RequestView) -> str:
    lines = ["| step | state | what happened |", "| --- | --- | --- |"]
    lines += [_step(step) for step in view.steps]
    return "\n".join(lines)


def _step(step: Step) -> str:
    said = shown(step.cause if step.status is StepStatus.FAILED else step.detail)
    mark = _MARKS.get(step.status, "")
    return f"| {step.number}. {step.title} | {mark}{step.status} | {said} |"


def _commands(view: RequestView) -> str:
    request = view.request
    short = str(request.id)[:_ID]
    commands = [
        f"certrail request show {short}",
        f"certrail endpoint show {quoted(request.location)}",
    ]
    if not view.is_successful:
        commands.insert(0, f"certrail request retry {short} --wait")
        asked = [request.plan.ca, request.plan.target, request.plan.dns]
        names = dict.fromkeys(connector.name for connector in asked if connector)
        commands.append(f"certrail connector check {' '.join(names)}")
    intro = (
        "What goes on from here:"
        if view.is_successful
        else ("What goes on from here; *Retry* on this run's page does the same as the first line:")
    )
    return "\n".join([intro, "", "```sh", *commands, "```"])


def _links(earlier: Sequence[RequestView]) -> str:
    lines = [
        f"- [{shown(one.request.flow_run_name)}]({one.flow_run_url}), "
        f"{one.request.status.text.lower()}, {_time(one.request.ended_at)}"
        for one in earlier
        if one.flow_run_url and one.request.ended_at
    ]
    return "\n".join(["Before this one:", "", *lines]) if lines else ""


def shown(value: object) -> str:
    """Return text of any origin so that it shows as it is, on one line; `code` stays code."""
    words = plain(" ".join(str("" if value is None else value).split()))
    parts = words.split("`")
    if len(parts) % 2 == 0:
        return _SPECIAL.sub(r"\\\1", words)
    # Inside code nothing but a table's bar has a meaning.
    return "`".join(
        part.replace("|", r"\|") if index % 2 else _SPECIAL.sub(r"\\\1", part)
        for index, part in enumerate(parts)
    )


def _time(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}Z" if moment else ""
