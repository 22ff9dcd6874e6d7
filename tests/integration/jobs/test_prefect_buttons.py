"""Pause, Resume and Cancel in Prefect's pages do to a job what an operator expects."""

from __future__ import annotations

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.hurry import hurried
from tests.support.process import wait_for


def test_one_endpoint_can_be_cancelled_and_the_job_paused_and_resumed(
    shell: Shell, endpoints: Estate
) -> None:
    """The endpoint ends as cancelled at its next safe point; the job goes on without it."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"buttons-{endpoints.prefix}"
    # One after the other, so that there is still something to pause on a fast machine.
    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "1"
    )
    job_run = told["flow_run_id"]
    asked: set[str] = set()

    def one_is_cancelled() -> bool:
        # One that is past its last safe point when it hears of it ends as a success.
        for run in shell.members(name, "RUNNING"):
            if run["id"] not in asked:
                asked.add(run["id"])
                shell.api.set_state(run["id"], "CANCELLING")
        return bool(shell.members(name, "CANCELLED"))

    wait_for(one_is_cancelled, "a member that is cancelled", within=60)
    late = shell.members(name, "CANCELLED")[0]
    shell.api.suspend(job_run)
    paused = shell.wait_for_status(name, "paused")
    assert paused["counts"]["in_progress"] == 0
    assert paused["counts"]["cancelled"] >= 1
    shell.api.post(f"/flow_runs/{job_run}/resume")
    ended = shell.wait_for_status(name, "completed")

    one = shell.json("request", "show", late["name"].split()[-1])
    assert one["status"] == "cancelled"
    assert ended["counts"]["failed"] == 0
    assert ended["counts"]["cancelled"] >= 1
    assert ended["counts"]["cancelled"] + ended["counts"]["successful"] == 8
    shell.api.wait(job_run, "COMPLETED")
    must_agree(shell.stack, job=name)


def test_cancel_on_the_page_of_the_job_stops_all_of_it(shell: Shell, endpoints: Estate) -> None:
    """Nothing new begins, what runs comes to a safe point, the record says who did it."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"stop-{endpoints.prefix}"
    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "2"
    )
    shell.wait_until(name, "endpoints in progress", "in_progress", 1)

    shell.api.set_state(told["flow_run_id"], "CANCELLING")
    ended = shell.wait_for_status(name, "cancelled")

    assert ended["counts"]["failed"] == 0
    assert ended["counts"]["cancelled"] >= 5
    assert ended["counts"]["cancelled"] + ended["counts"]["successful"] == 8
    shell.api.wait(told["flow_run_id"], "CANCELLED")
    must_agree(shell.stack, job=name)


def paused(shell: Shell, endpoints: Estate, name: str) -> str:
    """Start a job and pause it; returns its flow run, which rests."""
    shell.apply(endpoints, slow=endpoints.names)
    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "1"
    )
    shell("job", "pause", name)
    shell.wait_for_status(name, "paused")
    run: str = told["flow_run_id"]
    shell.api.wait(run, "PAUSED")
    return run


def test_only_people_take_a_pause_back(shell: Shell, endpoints: Estate) -> None:
    """A worker that stopped before the run rested hands it on; the next one lays it to rest."""
    name = f"rests-{endpoints.prefix}"
    run = paused(shell, endpoints, name)
    before = shell.api.read(run)["run_count"]

    shell.api.restart(run, "the worker stops; another one goes on")

    shell.api.wait(run, "PAUSED", "COMPLETED", runs=before + 1)
    assert shell.json("job", "show", name)["status"] == "paused"
    shell.api.post(f"/flow_runs/{run}/resume")
    assert shell.wait_for_status(name, "completed")["counts"]["successful"] == 8


def test_cancel_on_the_page_of_a_paused_job_ends_it(shell: Shell, endpoints: Estate) -> None:
    """Prefect ends a run that rests at once, and no worker hears of it: the repair does."""
    name = f"ends-{endpoints.prefix}"
    run = paused(shell, endpoints, name)

    shell.api.set_state(run, "CANCELLING")
    shell.api.wait(run, "CANCELLED")
    with hurried(shell.api, "reconcile"):
        ended = shell.wait_for_status(name, "cancelled", within=100)

    assert ended["counts"]["cancelled"] >= 5
    assert ended["counts"]["cancelled"] + ended["counts"]["successful"] == 8
    must_agree(shell.stack, job=name)


def test_the_run_of_a_job_that_is_over_does_not_rest(shell: Shell, endpoints: Estate) -> None:
    """Prefect was away when the paused job was cancelled: it is told when it is back."""
    name = f"over-{endpoints.prefix}"
    run = paused(shell, endpoints, name)
    shell("job", "cancel", name)
    shell.api.wait(run, "CANCELLED")

    resting = {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}
    shell.api.post(f"/flow_runs/{run}/set_state", state=resting, force=True)
    shell.api.wait(run, "PAUSED")
    with hurried(shell.api, "reconcile"):
        shell.api.wait(run, "CANCELLED", within=90)

    must_agree(shell.stack, job=name)


def test_retry_on_the_page_of_a_request_that_never_began_begins_it(
    shell: Shell, endpoints: Estate
) -> None:
    """It was cancelled before its time: nothing of it is to be gone on with."""
    shell.apply(endpoints)
    made = shell.json("request", "start", endpoints.locations()[0], "--at", "+2h")
    shell("request", "cancel", made["request_id"])
    shell.api.wait(made["flow_run_id"], "CANCELLED")

    shell.api.retry(made["flow_run_id"])
    shell.api.wait(made["flow_run_id"], runs=1)

    shown = shell.json("request", "show", made["request_id"])
    assert shown["status"] == "automation-successful"
    assert shell.api.read(made["flow_run_id"])["state_type"] == "COMPLETED"
