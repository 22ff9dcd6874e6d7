"""Runs in Prefect that did not end as their job: ``certrail doctor --runs`` finds them, a repair
ends them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree, repair
from tests.support.bulk import Estate, chosen
from tests.support.process import wait_for


def test_shards_that_wait_after_their_job_are_ended(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """Paused by somebody, or scheduled when the job was cancelled, they would wait for ever."""
    shell.apply(endpoints)
    name = f"waiting {endpoints.prefix}"
    some = chosen(endpoints.locations()[:2], tmp_path)
    told = shell.json(
        *("job", "start", name, "--locations-file", str(some), "--shard", "1", "--wait")
    )
    own = told["flow_run_id"]
    shards = sorted(run["id"] for run in shell.api.children(own) if "shard" in run["name"])
    paused, scheduled = shards
    # So late that no worker takes it meanwhile.
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    shell.api.post(f"/flow_runs/{paused}/set_state", state={"type": "PAUSED"}, force=True)
    shell.api.post(
        f"/flow_runs/{scheduled}/set_state",
        state={"type": "SCHEDULED", "state_details": {"scheduled_time": tomorrow}},
        force=True,
    )

    def states() -> list[dict[str, str]]:
        return [shell.api.read(run)["state"] for run in shards]

    def are_ended() -> bool:
        repair(shell.api)
        return all(one["type"] == "CANCELLED" for one in states())

    assert [one["type"] for one in states()] == [
        "PAUSED" if run == paused else "SCHEDULED" for run in shards
    ]
    wait_for(are_ended, "the runs of the shards are ended", within=120)

    assert all(f"the job {name} is completed" in one["message"] for one in states())
    repairs = [entry for run in shards for entry in shell.json("audit", "list", "--object", run)]
    assert {(one["action"], one["detail"]["was"]) for one in repairs} == {
        ("repair.end-run", "Paused"),
        ("repair.end-run", "Scheduled"),
    }
    must_agree(shell.stack, job=name)


def test_what_prefect_shows_of_a_job_that_is_over_is_compared(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """The tests of jobs trust this check, so it must be able to fail."""
    shell.apply(endpoints)
    name = f"agree {endpoints.prefix}"
    some = chosen(endpoints.locations()[:2], tmp_path)
    told = shell.json("job", "start", name, "--locations-file", str(some), "--wait")
    own = told["flow_run_id"]
    compared = must_agree(shell.stack, job=name)
    (shard,) = [run["id"] for run in shell.api.children(own) if "shard" in run["name"]]

    def found() -> dict[str, str]:
        findings = shell.json("doctor", "--runs", "--job", name, "--settle", "0s", code=1)
        return {one["check"]: f"{one['message']} | {one['remedy']}" for one in findings}

    # No repair corrects it yet: it leaves alone what has just ended.
    with psycopg.connect(shell.stack.database_url) as connection:
        connection.execute(
            "update jobs set ended_at = ended_at + interval '1 hour' where name = %s", [name]
        )
    shell.api.post(f"/flow_runs/{shard}/set_state", state={"type": "PAUSED"}, force=True)
    open_ = found()
    shell.api.post(f"/flow_runs/{own}/set_state", state={"type": "CANCELLED"}, force=True)
    both = found()
    shell.api.delete(f"/flow_runs/{shard}")
    shell.api.delete(f"/flow_runs/{own}")
    gone = found()

    assert "2 requests, 10 task runs, 1 ended job: " in compared
    assert set(open_) == {"shard-run-open"}
    assert f"job {name}: the job is completed, the flow run {shard} of" in open_["shard-run-open"]
    assert set(both) == {"shard-run-open", "job-run-state"}
    assert f"the job is completed, its flow run {own} Cancelled" in both["job-run-state"]
    assert f"`certrail job show '{name}'`" in both["job-run-state"]
    assert set(gone) == {"shard-run-missing", "job-run-missing"}
    refused = shell("doctor", "--runs", "--job", f"{name}-mistyped", code=2)
    assert "there is no job" in refused.stderr
