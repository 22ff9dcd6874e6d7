"""The worker that executes runs inside its own process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack, connect_anew
from tests.support.toy_flows import STEPS

TOYS = "tests.support.toy_flows"


def test_many_runs_share_one_process_and_every_step_is_recorded(
    installation: Stack, api: PrefectApi
) -> None:
    """A process for each endpoint costs seconds of CPU; a lost step is a wrong record."""
    deployment = api.deploy("toy", f"{TOYS}.five_steps")

    runs = [api.run(deployment) for _ in range(30)]

    assert {api.wait(run)["state_type"] for run in runs} == {"COMPLETED"}
    wait_for(lambda: api.task_runs(runs) == 30 * STEPS, "all steps recorded", within=20)


def test_a_step_that_lasts_is_shown_running_and_a_short_one_when_it_is_over(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """Each state costs the server an event; nobody can look at one of milliseconds."""
    run = api.run(api.deploy("toy-long-step", f"{TOYS}.short_and_long"), path=str(tmp_path / "go"))

    def shown() -> dict[str, str]:
        found = api.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}})
        return {one["name"]: one["state_name"] for one in found}

    wait_for(
        lambda: shown() == {"1. toy step": "Completed", "long toy step": "Running"},
        "one is over, one runs",
        within=30,
    )
    (tmp_path / "go").touch()
    wait_for(lambda: set(shown().values()) == {"Completed"}, "both are over", within=30)

    for one in api.post("/task_runs/filter", flow_runs={"id": {"any_": [run]}}):
        states = api.get(f"/task_run_states/?task_run_id={one['id']}")
        told = [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]
        assert told[-1] == "Completed"
        assert ("Running" in told) == (one["name"] == "long toy step"), told
        assert one["start_time"]
        assert one["start_time"] <= one["end_time"]


def test_both_pools_are_served(installation: Stack, api: PrefectApi) -> None:
    """One `certrail up` is agent and sensor at once."""
    deployment = api.deploy("toy", f"{TOYS}.five_steps", pool="sensors")

    assert api.wait(api.run(deployment))["state_type"] == "COMPLETED"


def test_a_failing_run_harms_only_itself(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """Hundreds of requests share the process."""
    waiting = api.run(api.deploy("toy-waiting", f"{TOYS}.wait_for_file"), path=str(tmp_path / "go"))
    api.wait(waiting, "RUNNING")

    failed = api.wait(api.run(api.deploy("toy-failing", f"{TOYS}.fail")))
    (tmp_path / "go").touch()

    assert failed["state_type"] == "FAILED"
    assert "meant to fail" in failed["state"]["message"]
    assert api.wait(waiting)["state_type"] == "COMPLETED"


def test_a_run_that_ends_while_the_database_is_away_harms_no_other(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """What it came to cannot be told then; the process, and all that runs in it, goes on."""
    deployment = api.deploy("toy-waiting", f"{TOYS}.wait_for_file")
    first, second = tmp_path / "first", tmp_path / "second"
    runs = [api.run(deployment, path=str(path)) for path in (first, second)]
    for run in runs:
        api.wait(run, "RUNNING")
    worker = installation.child("deployments.worker")

    os.kill(installation.child("pginstall"), signal.SIGKILL)
    first.touch()

    wait_for(lambda: _is_ready(installation), "the database is back", within=60)
    connect_anew()
    second.touch()
    assert api.wait(runs[1])["state_type"] == "COMPLETED"
    assert installation.child("deployments.worker") == worker


def _is_ready(installation: Stack) -> bool:
    return httpx.get(f"{installation.api_url}/ready", timeout=10).is_success


def test_what_a_run_logs_is_shown_with_it(installation: Stack, api: PrefectApi) -> None:
    """People look for the cause on the run's page."""
    run = api.run(api.deploy("toy-failing", f"{TOYS}.fail"))
    api.wait(run)

    wait_for(lambda: "meant to fail" in api.logs(run), "the run's log", within=20)


def test_a_cancelled_run_ends_as_cancelled(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """Prefect's engine takes an ended asyncio task for a crash."""
    run = api.run(api.deploy("toy-waiting", f"{TOYS}.wait_for_file"), path=str(tmp_path / "never"))
    api.wait(run, "RUNNING")

    api.set_state(run, "CANCELLING")

    assert api.wait(run)["state_type"] == "CANCELLED"


def test_members_of_a_cancelled_job_are_cancelled_too(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """A crashed member would be tried again by hand for nothing."""
    run = api.run(api.deploy("toy-job", f"{TOYS}.job"), path=str(tmp_path / "never"), members=3)

    def all_run() -> bool:
        return [c["state_type"] for c in api.children(run)] == ["RUNNING"] * 3

    wait_for(all_run, "three members run", within=30)

    api.set_state(run, "CANCELLING")

    assert api.wait(run)["state_type"] == "CANCELLED"
    assert {api.wait(child["id"])["state_type"] for child in api.children(run)} == {"CANCELLED"}


def test_a_synchronous_flow_runs_as_well(installation: Stack, api: PrefectApi) -> None:
    """Not every flow that somebody deploys is async."""
    run = api.run(api.deploy("toy-sync", f"{TOYS}.synchronous"))

    assert api.wait(run)["state_type"] == "COMPLETED"


def test_a_flow_that_cannot_be_imported_says_so(installation: Stack, api: PrefectApi) -> None:
    """Prefect would run a stand-in made from the source text."""
    missing = api.run(api.deploy("toy-missing", f"{TOYS}.no_such_flow"))
    path = api.run(api.deploy("toy-path", "flows/file.py:flow"))

    assert api.wait(missing)["state_type"] == "CRASHED"
    assert "no_such_flow" in api.read(missing)["state"]["message"]
    assert "not a module path" in api.wait(path)["state"]["message"]


def test_the_retry_button_runs_the_same_run_again(installation: Stack, api: PrefectApi) -> None:
    """A retry that made a new run would lose the request's record."""
    run = api.run(api.deploy("toy-failing", f"{TOYS}.fail"))
    api.wait(run, "FAILED")

    api.set_state(run, "SCHEDULED", "AwaitingRetry")

    assert api.wait(run, "FAILED", runs=2)["run_count"] == 2


def test_a_suspended_run_leaves_the_worker_and_resumes(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """A wait of hours for an approval must not hold a place in the worker."""
    run = api.run(api.deploy("toy-stepping", f"{TOYS}.step_until"), path=str(tmp_path / "go"))
    api.wait(run, "RUNNING")

    api.suspend(run)
    wait_for(lambda: "Finished in state Suspended" in api.logs(run), "left the worker", within=30)
    (tmp_path / "go").touch()
    api.post(f"/flow_runs/{run}/resume")

    # Prefect does not count a resumed run as another one; its log tells.
    assert api.wait(run)["state_type"] == "COMPLETED"
    wait_for(lambda: api.logs(run).count("Beginning flow run") == 2, "begun twice", within=20)


def test_after_kill_9_a_new_worker_takes_the_run_up_again(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """The journal makes finished steps return at once, but somebody must run them."""
    go, notes = tmp_path / "go", tmp_path / "go.pids"
    run = api.run(api.deploy("toy-waiting", f"{TOYS}.wait_for_file"), path=str(go))
    wait_for(notes.exists, "the run waits", within=30)
    before = installation.child("deployments.worker")
    again, said = "the worker runs again", installation.said()

    os.kill(before, signal.SIGKILL)
    wait_for(
        lambda: installation.said().count(again) > said.count(again), "a new worker", within=60
    )
    api.set_state(run, "SCHEDULED", "AwaitingRetry")
    wait_for(lambda: len(notes.read_text().split()) == 2, "taken up again", within=60)
    go.touch()

    assert api.wait(run, "COMPLETED", runs=2)["run_count"] == 2
    assert notes.read_text().split() == [str(before), str(installation.child("deployments.worker"))]
