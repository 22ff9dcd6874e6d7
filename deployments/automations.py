"""The automations that watch, as Prefect shows them under Automations.

They act by starting a deployment of ours: nothing of ours has to be in the
server's process, and what they saw goes through the same outbox, rules and
delivery log as everything else. What somebody switched off, or changed, in
Prefect's pages stays so until a new version of Certrail changes that automation.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture

from certrail.model import Workflow

TAG = "certrail"
SEND = "send-notifications/every-minute"
ALARM = "alarm/by-automation"

_AT_ONCE = timedelta(seconds=10)
_LATE = timedelta(minutes=2)
_BEGUN = {
    f"prefect.flow-run.{state}"
    for state in ("Pending", "Running", "Completed", "Failed", "Crashed", "Cancelled", "Cancelling")
}
# Upkeep that has times of its own, or none: it may stay away for long.
_AT_TIMES = ("saved-report", "executor-scan")
# What people have to hear of before the next minute: name, what it is for, the events.
_AT_ONCE_TOLD = (
    (
        "Certrail: tell at once",
        "When a request failed or needs somebody, a bulk job ended in which something failed, or "
        "a certificate is not what it should be, messages go out within seconds.",
        {
            "certrail.request.failed",
            "certrail.request.rolled-back",
            "certrail.request.approval-pending",
            "certrail.job.failed-in-part",
            "certrail.certificate.expired",
            "certrail.certificate.drifted",
        },
    ),
    (
        "Certrail: a job is over its threshold",
        "Tells at once of a bulk job that failed, or was paused because too many failed.",
        {"certrail.job.failed", "certrail.job.paused"},
    ),
    (
        "Certrail: an agent or sensor is silent",
        "Tells at once that one was not heard of, with what waits for it, and that it is back.",
        {"certrail.executor.silent", "certrail.executor.recovered"},
    ),
    (
        "Certrail: a renewal is overdue",
        "Tells at once of a certificate that should have been renewed by now and was not.",
        {"certrail.renewal.overdue"},
    ),
)


@dataclass(frozen=True, slots=True)
class Watched:
    """A flow that runs by a schedule.

    Attributes:
        flow: its name.
        every: the time between two runs.
    """

    flow: str
    every: timedelta


def wanted(
    deployments: Mapping[str, UUID], watched: Sequence[Watched]
) -> tuple[AutomationCore, ...]:
    """Return the automations of this version.

    Args:
        deployments: id by ``flow/name``.
        watched: flows whose regular runs must not fail or stay away.
    """
    send, alarm = deployments[SEND], deployments[ALARM]
    upkeep = [*(one.flow for one in watched), *_AT_TIMES]
    return (
        *(
            _automation(
                name,
                description,
                EventTrigger(expect=events, posture=Posture.Reactive, threshold=1, within=_AT_ONCE),
                RunDeployment(source="selected", deployment_id=send, parameters={}),
            )
            for name, description, events in _AT_ONCE_TOLD
        ),
        _automation(
            "Certrail: a run crashed",
            "Tells of each run whose process died. Requests go on by themselves.",
            EventTrigger(
                expect={"prefect.flow-run.Crashed"},
                match_related=_flows([*upkeep, *Workflow, "bulk-job"]),
                for_each={"prefect.resource.id"},
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(0),
            ),
            _alarm(alarm, "certrail.run.crashed"),
        ),
        _automation(
            "Certrail: upkeep failed",
            "Tells when a run of Certrail's own upkeep failed, at most every half hour. Requests "
            "and jobs tell of their failures themselves.",
            EventTrigger(
                expect={"prefect.flow-run.Failed"},
                match_related=_flows(upkeep),
                posture=Posture.Reactive,
                threshold=1,
                within=timedelta(minutes=30),
            ),
            _alarm(alarm, "certrail.run.failed"),
        ),
        _automation(
            "Certrail: a request is late",
            "Tells of each request whose run has not begun two minutes after it was late: no "
            "worker takes it.",
            EventTrigger(
                after={"prefect.flow-run.Late"},
                expect=set(_BEGUN),
                match_related=_flows([*Workflow, "bulk-job"]),
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=_LATE,
            ),
            _alarm(alarm, "certrail.run.late"),
        ),
        *(
            _automation(
                f"Certrail: {one.flow} stays away",
                f"Tells when no run of {one.flow} was completed for {_words(_patience(one))}.",
                EventTrigger(
                    expect={"prefect.flow-run.Completed"},
                    match_related=_flows([one.flow]),
                    posture=Posture.Proactive,
                    threshold=1,
                    within=_patience(one),
                ),
                _alarm(alarm, "certrail.system.silent", subject=one.flow),
            )
            for one in watched
        ),
    )


async def make(
    client: PrefectClient, watched: Sequence[Watched], found: Sequence[DeploymentResponse]
) -> None:
    """Create or bring up to date the automations on the server; twice is once.

    Args:
        client: of the server.
        watched: see :func:`wanted`.
        found: the deployments of this version.
    """
    flows = {flow.id: flow.name for flow in await client.read_flows(limit=200)}
    deployments = {f"{flows.get(one.flow_id)}/{one.name}": one.id for one in found}
    await asyncio.gather(*(_keep(client, one) for one in wanted(deployments, watched)))


async def _keep(client: PrefectClient, automation: AutomationCore) -> None:
    present: list[Automation] = await client.read_automations_by_name(automation.name)
    mine = [one for one in present if TAG in one.tags]
    if not mine:
        await client.create_automation(automation)
        return
    first, *others = mine
    for other in others:  # two workers made it at the same moment
        await client.delete_automation(other.id)
    if set(automation.tags) <= set(first.tags):
        return
    # Switched off in Prefect's pages stays switched off.
    await client.update_automation(
        first.id, automation.model_copy(update={"enabled": first.enabled})
    )


def _automation(
    name: str, description: str, trigger: EventTrigger, action: RunDeployment
) -> AutomationCore:
    made = AutomationCore(
        name=name, description=description, trigger=trigger, actions=[action], tags=[TAG]
    )
    # Sets come in another order in each process.
    text = json.dumps(
        made.model_dump(mode="json", exclude={"trigger": {"after", "expect", "for_each"}})
    )
    text += json.dumps([sorted(trigger.after), sorted(trigger.expect), sorted(trigger.for_each)])
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    return made.model_copy(update={"tags": [TAG, f"version:{version}"]})


def _alarm(deployment: UUID, event: str, *, subject: str = "") -> RunDeployment:
    # A lone value is rendered as JSON, which knows no UUID.
    of_a_run = {"resource": "{{ event.resource.id }}", "occurrence": "{{ event.id | string }}"}
    parameters: dict[str, Any] = {"event": event, **({"subject": subject} if subject else of_a_run)}
    return RunDeployment(source="selected", deployment_id=deployment, parameters=parameters)


def _flows(names: Sequence[str]) -> dict[str, str | list[str]]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": [str(one) for one in names]}


def _patience(one: Watched) -> timedelta:
    return max(3 * one.every, timedelta(minutes=15))


def _words(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return f"{minutes // 60} hours" if minutes >= 120 else f"{minutes} minutes"
