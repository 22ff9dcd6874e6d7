"""Who runs a job's endpoints: failing ones beside the others, workers that come and are killed."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.jobs.conftest import BROKEN, Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.process import running, wait_for


def gate(file: Path, then: str = "true") -> list[str]:
    """Return a command for a server's test that waits until *file* is there."""
    return ["sh", "-c", f"until [ -e {shlex.quote(str(file))} ]; do sleep 0.1; done; {then}"]


def test_endpoints_that_failed_before_hold_up_no_other(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """They have places of their own: all good ones are done before the first of them is."""
    bad, opened = endpoints.names[:2], tmp_path / "open"

    def configured(failing: list[str]) -> dict[str, Any]:
        whole = endpoints.configuration(install_timeout_seconds=300)
        whole["endpoints"] = whole["endpoints"][:4]
        for endpoint in whole["endpoints"]:
            if endpoint["names"][0] in bad:
                endpoint["server"]["test"] = failing
        return whole

    shell("apply", "-f", str(endpoints.write(configured(BROKEN))))
    first, second = f"lane1-{endpoints.prefix}", f"lane2-{endpoints.prefix}"
    shell("job", "start", first, "--filter", f"tag={endpoints.prefix}", "--wait", code=1)
    shell("apply", "-f", str(endpoints.write(configured(gate(opened, shlex.join(BROKEN))))))

    # The bad ones come first by name, and are as many as there are places.
    shell(
        "job", "start", second, "--filter", f"tag={endpoints.prefix}", "--action", "reissue",
        "--concurrency", "2",
    )  # fmt: skip
    shell.wait_until(second, "successful endpoints", "successful", 2)
    before = shell.json("job", "show", second)["counts"]
    opened.touch()
    after = shell.wait_for_status(second, "failed")["counts"]

    # Each of them is at work, or waits for a place: none is over.
    assert (before["failed"], before["in_progress"] + before["pending"]) == (0, 2)
    assert (after["successful"], after["failed"]) == (2, 2)
    must_agree(shell.stack, job=second)


def holders(shell: Shell, job: str) -> set[int]:
    """Return the processes that hold shards of a job."""
    with psycopg.connect(shell.stack.database_url) as connection:
        rows: list[Any] = connection.execute(
            "select job_shards.lease_owner from job_shards join jobs on jobs.id = job_id"
            " where name = %s and job_shards.lease_until > now()",
            [job],
        ).fetchall()
    return {int(owner.split(":")[1]) for (owner,) in rows}


def test_a_worker_that_joins_takes_part_and_one_that_is_killed_is_replaced(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """In the middle of a wave, without anybody telling the job."""
    early, late = tmp_path / "early", tmp_path / "late"
    whole = endpoints.configuration(install_timeout_seconds=300)
    for number, endpoint in enumerate(whole["endpoints"]):
        test = ["sleep", "1"] if number < 5 else gate(late)
        endpoint["server"]["test"] = gate(early) if number == 1 else test
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"joins-{endpoints.prefix}"
    second = f"{endpoints.prefix}-second"
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]
    shell(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "4",
        "--shard", "1",
    )  # fmt: skip
    shell.wait_until(name, "successful endpoints", "successful", 1)

    with running(
        [*command, "--name", second, "--queue", "default"],
        log=tmp_path / "second.log",
        env=shell.stack.env,
        # Those of other tests may be silent by now: exit code 1.
        ready=lambda: second in shell.stack.cli("executor", "list").stdout,
        within=90,
    ) as process:
        early.touch()
        shell.wait_until(name, "successful endpoints", "successful", 5)
        both = {shell.stack.child("deployments.worker"), process.pid}
        wait_for(lambda: holders(shell, name) == both, "both have a shard", within=120)
        process.kill()
        process.wait()
        late.touch()
        told = shell.wait_for_status(name, "completed", within=240)

    assert told["counts"]["successful"] == 8
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    must_agree(shell.stack, job=name)
    shell("executor", "forget", second)
