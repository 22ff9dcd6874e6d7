"""``certrail doctor --runs`` finds a job whose runs in Prefect did not end as it did."""

from __future__ import annotations

from pathlib import Path

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, chosen


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

    # States that no repair corrects and no worker takes up.
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
