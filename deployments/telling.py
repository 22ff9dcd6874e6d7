"""What a task run tells Prefect: that it runs, once it has for a moment, and how it ended.

Each state of a task run is an event that the server keeps, compares with its
automations and makes a record of. A step that is over within half a second,
shown by pages that look every few seconds, is told of once, with its
beginning and its end.
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import prefect.task_engine
from prefect.client.schemas.objects import State, TaskRun
from prefect.events import Event
from prefect.utilities.engine import emit_task_run_state_change_event

MOMENT = 0.5
"""So long a task has to run, in seconds, before Prefect is told that it does."""

_waiting: dict[UUID, asyncio.TimerHandle] = {}
_told: dict[UUID, Event | None] = {}


def install() -> None:
    """Make the tasks of this process tell by :func:`tell`; Prefect's engine looks it up there."""
    prefect.task_engine.emit_task_run_state_change_event = tell  # type: ignore[attr-defined]


def tell(
    task_run: TaskRun,
    initial_state: State[Any] | None,
    validated_state: State[Any],
    follows: Event | None = None,
) -> Event | None:
    """Emit the event of a state; of the state Running only if it lasts.

    Returns the event, which the next one of the same run follows, or None.
    """
    if validated_state.is_running():
        loop = _loop()
        if loop is not None:
            _waiting[task_run.id] = loop.call_later(
                MOMENT, _tell_later, task_run, initial_state, validated_state, follows
            )
            return follows
    if (waiting := _waiting.pop(task_run.id, None)) is not None:
        waiting.cancel()
        # The end stands for both: the server has not heard of the state before it.
        initial_state = None
    told = _told.pop(task_run.id, None)
    return emit_task_run_state_change_event(
        task_run, initial_state, validated_state, told or follows
    )


def _tell_later(
    task_run: TaskRun,
    initial_state: State[Any] | None,
    running: State[Any],
    follows: Event | None,
) -> None:
    del _waiting[task_run.id]
    _told[task_run.id] = emit_task_run_state_change_event(task_run, initial_state, running, follows)


def _loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        # A task without a loop cannot be told of later.
        return None
