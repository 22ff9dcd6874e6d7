"""The automations that watch, as they are described to Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from uuid import UUID

from certrail.events import KINDS
from certrail.notify.alarms import ALARMS
from deployments.automations import ALARM, SEND, TAG, Watched, wanted
from tests.support.stack import ROOT

IDS = {SEND: UUID(int=1), ALARM: UUID(int=2)}
WATCHED = [Watched("reconcile", timedelta(minutes=1)), Watched("sweep", timedelta(hours=1))]


def test_each_has_a_name_of_its_own_and_says_what_it_does() -> None:
    """They are read in Prefect's pages, by people who did not make them."""
    found = wanted(IDS, WATCHED)

    assert len({one.name for one in found}) == len(found)
    assert all(one.description and TAG in one.tags for one in found)


def test_each_kind_of_failure_has_one_that_tells_of_it() -> None:
    """Two that send for the same event would be two runs; none, up to a minute."""
    found = {one.name: one.trigger for one in wanted(IDS, WATCHED)}
    at_once = {
        "tell at once": "certrail.request.failed",
        "a job is over its threshold": "certrail.job.paused",
        "an agent or sensor is silent": "certrail.executor.silent",
        "a renewal is overdue": "certrail.renewal.overdue",
        "a run crashed": "prefect.flow-run.Crashed",
        "upkeep failed": "prefect.flow-run.Failed",
    }

    for name, event in at_once.items():
        told = [one for one, trigger in found.items() if event in trigger.expect]  # type: ignore[union-attr]
        if event == "prefect.flow-run.Crashed":
            # It is also what ends the wait for a late run.
            told.remove("Certrail: a request is late")
        if event == "prefect.flow-run.Failed":
            told.remove("Certrail: a request is late")
        assert told == [f"Certrail: {name}"]
    urgent = {event for trigger in found.values() for event in trigger.expect}  # type: ignore[union-attr]
    assert {"certrail.job.failed", "certrail.job.failed-in-part"} <= urgent
    known = {kind.name for kind in KINDS}
    assert {event for event in urgent if event.startswith("certrail.")} <= known


def test_what_they_raise_is_an_alarm() -> None:
    """A misspelt event would end in a failed run at the worst moment."""
    raised = {
        one.actions[0].parameters.get("event")  # type: ignore[union-attr]
        for one in wanted(IDS, WATCHED)
        if one.actions[0].parameters  # type: ignore[union-attr]
    }

    assert raised == ALARMS


def test_patience_is_three_intervals_and_a_quarter_of_an_hour_at_least() -> None:
    """A worker that is restarted is no alarm."""
    found = {one.name: one.trigger for one in wanted(IDS, WATCHED)}

    assert found["Certrail: reconcile stays away"].within == timedelta(minutes=15)  # type: ignore[union-attr]
    assert found["Certrail: sweep stays away"].within == timedelta(hours=3)  # type: ignore[union-attr]


def test_their_version_is_the_same_in_every_process() -> None:
    """Otherwise each start would undo what people changed."""
    script = (
        "import json; from tests.unit.notify.test_automations import *;"
        "print(json.dumps([one.tags for one in wanted(IDS, WATCHED)]))"
    )
    tags = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        tags.append(json.loads(done.stdout.splitlines()[-1]))

    assert tags[0] == tags[1]
