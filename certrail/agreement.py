"""Whether Prefect's records say what the inventory says: pure functions with reason codes.

The inventory's rows are the truth. What Prefect shows beside them is right
when every run and every step ended there as it ended here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from certrail.model import Action, Workflow
from certrail.tracker import ACTIVE, Status, StepStatus, Title, task_run_name


class Code(StrEnum):
    """In what a record of Prefect differs from our rows."""

    RUN_MISSING = "run-missing"
    RUN_STATE = "run-state"
    RUN_NAME = "run-name"
    RUN_FLOW = "run-flow"
    RUN_LABELS = "run-labels"
    RUN_TAGS = "run-tags"
    RUN_COUNT = "run-count"
    RUN_STRAY = "run-stray"
    STEP_MISSING = "step-missing"
    STEP_STATE = "step-state"
    STEP_TEXT = "step-text"
    STEP_DOUBLED = "step-doubled"
    STEP_STRAY = "step-stray"
    STEP_STUCK = "step-stuck"


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step as the inventory has it."""

    number: int
    title: Title
    status: StepStatus
    detail: str | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request as the inventory has it.

    Attributes:
        run_count: how often a worker began it.
        job_name: the bulk job it belongs to.
        started_at: when a worker began it first.
    """

    id: UUID
    location: str
    workflow: Workflow
    action: Action
    status: Status
    run_count: int
    flow_run_id: UUID | None
    job_name: str | None
    started_at: datetime | None
    steps: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task run in Prefect.

    Attributes:
        attempt: the run count of its flow run when it ran.
        kind: type of its state, such as ``COMPLETED``.
        state: name of its state, such as ``Skipped``.
    """

    id: UUID
    name: str
    attempt: int
    kind: str
    state: str
    message: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A flow run in Prefect, with its task runs.

    Attributes:
        flow: name of its flow, which is the workflow.
        request_id: the request that its parameters or labels name, None if none.
    """

    id: UUID
    name: str
    flow: str
    kind: str
    state: str
    run_count: int
    tags: frozenset[str]
    labels: Mapping[str, str]
    request_id: str | None
    created_at: datetime
    tasks: tuple[TaskRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One difference between Prefect's records and ours.

    Attributes:
        code: its kind.
        location: of the endpoint.
        message: what each of both says.
    """

    code: Code
    location: str
    request_id: UUID
    flow_run_id: UUID | None
    message: str


_FINAL = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
_WAITING = frozenset({"SCHEDULED", "PENDING"})
_KINDS: dict[Status, frozenset[str]] = {
    Status.APPROVAL_PENDING: _WAITING | {"PAUSED"},
    Status.AUTOMATION_SCHEDULED: _WAITING,
    # A run that has just begun takes its request a moment later.
    Status.AUTOMATION_REQUESTED: _WAITING | {"RUNNING"},
    # A stopping worker hands its runs back: they wait for another one.
    Status.IN_PROGRESS: _WAITING | {"RUNNING", "PAUSED", "CANCELLING"},
    Status.AUTOMATION_SUCCESSFUL: frozenset({"COMPLETED"}),
    Status.CERTIFICATE_DELIVERED: frozenset({"COMPLETED"}),
    Status.AUTOMATION_FAILED: frozenset({"FAILED"}),
    Status.ACTION_REQUIRED: frozenset({"FAILED"}),
    Status.CANCELLED: frozenset({"CANCELLED"}),
}
_INTERRUPTED = frozenset({"Failed", "Cancelled", "Crashed", "Cancelling"})
_SAID: dict[StepStatus, str] = {
    StepStatus.COMPLETED: "Completed",
    StepStatus.SKIPPED: "Skipped",
    StepStatus.FAILED: "Failed",
}
_STATES: dict[StepStatus, frozenset[str]] = {
    # A request that ends leaves no step running; what was begun was broken off.
    StepStatus.PENDING: _INTERRUPTED,
    StepStatus.RUNNING: frozenset(),
    StepStatus.CANCELLED: _INTERRUPTED,
    **{status: frozenset({name}) for status, name in _SAID.items()},
}
_ALWAYS_SHOWN = (StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.FAILED)


def is_shown_right(status: Status, kind: str) -> bool:
    """Return whether a flow run whose state is of type *kind* may carry a request of *status*."""
    return kind in _KINDS[status]


def untold(row: RequestRow, tasks: Sequence[TaskRecord]) -> list[tuple[StepRow, UUID | None]]:
    """Return the steps with an end that Prefect does not show, of a request that is over.

    With each its latest task run, None if Prefect has none: whoever ran it could
    not tell, or what was told got lost on the way.
    """
    latest = {task.name: task for task in sorted(tasks, key=lambda task: task.attempt)}
    found: list[tuple[StepRow, UUID | None]] = []
    for step in row.steps:
        task = latest.get(task_run_name(row.workflow, step.title))
        if step.status in _ALWAYS_SHOWN and (task is None or task.state != _SAID[step.status]):
            found.append((step, task.id if task else None))
    return found


def disagreements(row: RequestRow, runs: Sequence[RunRecord]) -> list[Disagreement]:
    """Return what differs between a request and the flow runs that carry or carried it.

    Args:
        row: the request with its steps.
        runs: its own flow run, and any other that names the request.
    """
    own = next((run for run in runs if run.id == row.flow_run_id), None)
    found = [
        Disagreement(code, row.location, row.id, row.flow_run_id, message)
        for code, message in _own(row, own)
    ]
    for other in runs:
        # A run that was replaced stays as its end left it, unless it did the work a second time.
        if other is not own and (other.kind not in _FINAL or other.kind == "COMPLETED"):
            message = f"another run of this request is {other.state}; its own is {row.flow_run_id}"
            found.append(Disagreement(Code.RUN_STRAY, row.location, row.id, other.id, message))
    return found


def _own(row: RequestRow, run: RunRecord | None) -> Iterator[tuple[Code, str]]:
    if run is None:
        if row.flow_run_id is not None:
            yield Code.RUN_MISSING, f"Prefect has no flow run {row.flow_run_id}"
        elif row.run_count:
            yield Code.RUN_MISSING, "a worker began it, but no flow run is noted for it"
        return
    if not is_shown_right(row.status, run.kind):
        yield Code.RUN_STATE, f"the request is {row.status}, its flow run {run.state}"
    if run.name != (wanted := f"{row.action} {row.location}"):
        yield Code.RUN_NAME, f"the flow run is called {run.name!r}, not {wanted!r}"
    if run.flow != row.workflow:
        yield Code.RUN_FLOW, f"the workflow is {row.workflow}, the flow {run.flow}"
    for label, text in (("certrail.request", str(row.id)), ("certrail.endpoint", row.location)):
        if run.labels.get(label) != text:
            yield Code.RUN_LABELS, f"the label {label} is {run.labels.get(label)!r}, not {text!r}"
    if row.job_name and (tag := f"job:{row.job_name}") not in run.tags:
        yield Code.RUN_TAGS, f"the tag {tag} is missing"
    yield from _run_count(row, run)
    yield from _tasks(row, run)


def is_counted_short(row: RequestRow, *, run_count: int, created_at: datetime) -> bool:
    """Tell whether Prefect counts fewer beginnings of a run than workers made.

    Its database does not wait for the disk, so that one that is killed forgets its last
    moments; whoever told it has its answer by then, and does not tell again.
    """
    # A run that began its request's work after another one counts from one again; and
    # one that found nothing to do counts in Prefect only.
    is_first = row.started_at is None or created_at <= row.started_at
    return is_first and run_count < row.run_count


def _run_count(row: RequestRow, run: RunRecord) -> Iterator[tuple[Code, str]]:
    if is_counted_short(row, run_count=run.run_count, created_at=run.created_at):
        yield (
            Code.RUN_COUNT,
            f"workers began the request {row.run_count} times, its flow run {run.run_count} times",
        )


def _tasks(row: RequestRow, run: RunRecord) -> Iterator[tuple[Code, str]]:
    over = row.status not in ACTIVE
    counted = Counter((task.name, task.attempt) for task in run.tasks)
    for (name, attempt), number in counted.items():
        if number > 1:
            yield Code.STEP_DOUBLED, f"{name}: {number} task runs in attempt {attempt}"
    for task in run.tasks:
        if task.kind not in _FINAL and (run.kind in _FINAL or task.attempt < run.run_count):
            yield Code.STEP_STUCK, f"{task.name}: {task.state} for ever, in attempt {task.attempt}"
    latest = {task.name: task for task in sorted(run.tasks, key=lambda task: task.attempt)}
    for step in row.steps:
        name = task_run_name(row.workflow, step.title)
        yield from _step(step, name, latest.pop(name, None), over=over)
    for name in latest:
        yield Code.STEP_STRAY, f"{name} is no step of {row.workflow}"


def _step(
    step: StepRow, name: str, task: TaskRecord | None, *, over: bool
) -> Iterator[tuple[Code, str]]:
    if task is None:
        if step.status in _ALWAYS_SHOWN:
            yield Code.STEP_MISSING, f"{name} is {step.status}; Prefect has no task run of it"
        return
    if not over and task.state != _SAID.get(step.status):
        return  # on its way
    if task.state not in _STATES[step.status]:
        yield Code.STEP_STATE, f"{name} is {step.status}, its task run {task.state}"
    elif step.status in (StepStatus.COMPLETED, StepStatus.SKIPPED):
        if task.message != step.detail:
            yield Code.STEP_TEXT, f"{name}: {step.detail!r} here, {task.message!r} in Prefect"
    elif step.status is StepStatus.FAILED and (step.cause or "") not in task.message:
        yield Code.STEP_TEXT, f"{name}: {step.cause!r} here, {task.message!r} in Prefect"
