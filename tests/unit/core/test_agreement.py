"""What counts as a difference between Prefect's records and the inventory's rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from certrail.agreement import Code, RequestRow, RunRecord, StepRow, TaskRecord, disagreements
from certrail.model import Action, Workflow
from certrail.tracker import STEPS, Status, StepStatus, task_run_name

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
REQUEST, RUN, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)
WORKFLOW = Workflow.DELIVERY
TITLES = STEPS[WORKFLOW]

ROW = RequestRow(
    id=REQUEST,
    location="vault/shop",
    workflow=WORKFLOW,
    action=Action.RENEW,
    status=Status.CERTIFICATE_DELIVERED,
    run_count=1,
    flow_run_id=RUN,
    job_name="spring",
    started_at=NOON,
    steps=tuple(
        StepRow(number, title, StepStatus.COMPLETED, f"did {number}", None)
        for number, title in enumerate(TITLES, start=1)
    ),
)
TASKS = tuple(
    TaskRecord(
        UUID(int=10 + step.number),
        task_run_name(WORKFLOW, step.title),
        1,
        "COMPLETED",
        "Completed",
        step.detail or "",
    )
    for step in ROW.steps
)
RECORD = RunRecord(
    id=RUN,
    name="renew vault/shop",
    flow="delivery",
    kind="COMPLETED",
    state="Completed",
    run_count=1,
    tags=frozenset({"job:spring"}),
    labels={"certrail.request": str(REQUEST), "certrail.endpoint": "vault/shop"},
    request_id=str(REQUEST),
    created_at=NOON - timedelta(seconds=1),
    tasks=TASKS,
)


def row(
    number: int, status: StepStatus, detail: str | None, cause: str | None = None
) -> RequestRow:
    """Return the request with one step changed."""
    steps = [
        replace(step, status=status, detail=detail, cause=cause) if step.number == number else step
        for step in ROW.steps
    ]
    return replace(ROW, steps=tuple(steps))


def record(number: int, kind: str, state: str, message: str, **changes: int) -> RunRecord:
    """Return the run with one task run changed."""
    tasks = list(TASKS)
    tasks[number - 1] = replace(tasks[number - 1], kind=kind, state=state, message=message)
    changed: dict[str, Any] = {"tasks": tuple(tasks), **changes}
    return replace(RECORD, **changed)


SKIPPED = row(2, StepStatus.SKIPPED, "still valid")
FAILED = replace(row(3, StepStatus.FAILED, None, "disk full"), status=Status.AUTOMATION_FAILED)
FAILED_RECORD = replace(
    record(3, "FAILED", "Failed", "3. Certificate delivery: disk full. Free some."),
    kind="FAILED",
    state="Failed",
)
CANCELLED = replace(row(3, StepStatus.CANCELLED, None), status=Status.CANCELLED)
CANCELLED_RECORD = replace(RECORD, kind="CANCELLED", state="Cancelled", tasks=TASKS[:2])
WAITING = replace(
    ROW,
    status=Status.AUTOMATION_SCHEDULED,
    run_count=0,
    started_at=None,
    steps=tuple(replace(s, status=StepStatus.PENDING, detail=None) for s in ROW.steps),
)
WAITING_RECORD = replace(RECORD, kind="SCHEDULED", state="Scheduled", run_count=0, tasks=())
# A worker died in step 2; another one went on.
AGAIN = replace(ROW, run_count=2)
AGAIN_RECORD = replace(
    RECORD,
    run_count=2,
    tasks=(
        *(replace(task, attempt=2) for task in TASKS),
        TASKS[0],
        replace(TASKS[1], kind="CRASHED", state="Crashed", message="the worker died"),
    ),
)
REPLACED = replace(RECORD, id=OTHER, kind="CRASHED", state="Crashed", tasks=())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        pytest.param(ROW, [RECORD], id="done"),
        pytest.param(SKIPPED, [record(2, "COMPLETED", "Skipped", "still valid")], id="skipped"),
        pytest.param(FAILED, [FAILED_RECORD], id="failed"),
        pytest.param(CANCELLED, [CANCELLED_RECORD], id="cancelled"),
        pytest.param(WAITING, [WAITING_RECORD], id="scheduled"),
        pytest.param(AGAIN, [AGAIN_RECORD], id="taken over"),
        pytest.param(
            replace(AGAIN, flow_run_id=RUN),
            [replace(RECORD, created_at=NOON + timedelta(minutes=1)), REPLACED],
            id="the first run is gone",
        ),
        pytest.param(replace(WAITING, flow_run_id=None), [], id="not handed over yet"),
    ],
)
def test_what_belongs_together_agrees(ours: RequestRow, theirs: list[RunRecord]) -> None:
    """A checker that cries wolf is switched off."""
    assert disagreements(ours, theirs) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param(ROW, [], {Code.RUN_MISSING}, id="run lost"),
        pytest.param(replace(ROW, flow_run_id=None), [], {Code.RUN_MISSING}, id="run never noted"),
        pytest.param(
            ROW,
            [replace(RECORD, kind="CRASHED", state="Crashed")],
            {Code.RUN_STATE},
            id="crashed though done",
        ),
        pytest.param(
            ROW, [replace(RECORD, kind="RUNNING", state="Running")], {Code.RUN_STATE}, id="for ever"
        ),
        pytest.param(ROW, [replace(RECORD, name="brave-lynx")], {Code.RUN_NAME}, id="name"),
        pytest.param(ROW, [replace(RECORD, flow="web-server")], {Code.RUN_FLOW}, id="flow"),
        pytest.param(ROW, [replace(RECORD, labels={})], {Code.RUN_LABELS}, id="labels"),
        pytest.param(ROW, [replace(RECORD, tags=frozenset())], {Code.RUN_TAGS}, id="tag"),
        pytest.param(AGAIN, [RECORD], {Code.RUN_COUNT}, id="a run that Prefect does not know of"),
        pytest.param(ROW, [RECORD, replace(RECORD, id=OTHER)], {Code.RUN_STRAY}, id="done twice"),
        pytest.param(
            ROW,
            [RECORD, replace(REPLACED, kind="RUNNING", state="Running")],
            {Code.RUN_STRAY},
            id="another still runs",
        ),
        pytest.param(ROW, [replace(RECORD, tasks=TASKS[:2])], {Code.STEP_MISSING}, id="step lost"),
        pytest.param(
            ROW, [record(2, "COMPLETED", "Skipped", "did 2")], {Code.STEP_STATE}, id="step state"
        ),
        pytest.param(
            ROW,
            [record(2, "RUNNING", "Running", "")],
            {Code.STEP_STATE, Code.STEP_STUCK},
            id="step for ever running",
        ),
        pytest.param(
            ROW, [record(2, "COMPLETED", "Completed", "else")], {Code.STEP_TEXT}, id="detail"
        ),
        pytest.param(
            FAILED,
            [replace(record(3, "FAILED", "Failed", "no"), kind="FAILED", state="Failed")],
            {Code.STEP_TEXT},
            id="cause",
        ),
        pytest.param(
            ROW,
            [replace(RECORD, tasks=(*TASKS, TASKS[0]))],
            {Code.STEP_DOUBLED},
            id="step twice in one attempt",
        ),
        pytest.param(
            ROW,
            [replace(RECORD, tasks=(*TASKS, replace(TASKS[0], name="9. Prayer")))],
            {Code.STEP_STRAY},
            id="a step of no list",
        ),
        pytest.param(
            AGAIN,
            [
                replace(
                    AGAIN_RECORD,
                    tasks=(
                        *AGAIN_RECORD.tasks[:-1],
                        replace(TASKS[1], kind="RUNNING", state="Running"),
                    ),
                )
            ],
            {Code.STEP_STUCK},
            id="what the dead worker left",
        ),
    ],
)
def test_what_differs_is_called_by_its_name(
    ours: RequestRow, theirs: list[RunRecord], expected: set[Code]
) -> None:
    """After bulk and chaos runs these are the ways in which records were lost or doubled."""
    assert {one.code for one in disagreements(ours, theirs)} == expected
