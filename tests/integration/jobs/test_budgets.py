"""Limits of a CA or a device hold for all workers, and for requests that run alone."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

import psycopg

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, gate
from tests.support.process import running, wait_for


def _is_begun(shell: Shell, job: str, queue: str) -> bool:
    """Whether a worker has the shard of *job* that only those of *queue* reach."""
    query = """
      select 1 from job_shards s join jobs j on j.id = s.job_id
      where j.name = %s and s.queue = %s and s.lease_until > now()
    """
    with psycopg.connect(shell.stack.database_url) as connection:
        return connection.execute(query, [job, queue]).fetchone() is not None


def _begins(shell: Shell, job: str) -> list[datetime]:
    """Return when the endpoints of *job* were begun, in order."""
    query = """
      select r.started_at from requests r join jobs j on j.id = r.job_id
      where j.name = %s order by r.started_at
    """
    with psycopg.connect(shell.stack.database_url) as connection:
        return [moment for (moment,) in connection.execute(query, [job])]


def test_two_workers_share_the_budget_of_a_ca_and_each_gets_what_only_it_reaches(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """A branch's servers are reached by the branch's agent alone; the CA is one for all."""
    branch, opened = f"{endpoints.prefix}-branch", tmp_path / "open"
    whole = endpoints.configuration(install_timeout_seconds=300)
    whole["endpoints"] = whole["endpoints"][:6]
    for number, endpoint in enumerate(whole["endpoints"]):
        endpoints.hold(whole, endpoint, opened, then="sleep 0.5")
        if number % 2:
            endpoint["executor"] = branch
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"both-{endpoints.prefix}"
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]

    with shell.limit(f"ca:{endpoints.prefix}-ca", 2):
        shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "6")
        try:
            # Nobody serves the branch yet: its endpoints wait, the others do not.
            waiting = shell.json("job", "show", name)
            shell.wait_until(name, "endpoints in progress", "in_progress", 2)
            with running(
                [*command, "--name", branch, "--queue", branch],
                log=tmp_path / "agent.log",
                env=shell.stack.env,
                # Those of other tests may be silent by now: exit code 1.
                ready=lambda: branch in shell.stack.cli("executor", "list").stdout,
                within=90,
            ):
                wait_for(lambda: _is_begun(shell, name, branch), "the branch is begun", within=120)
                before = shell.json("job", "show", name)["counts"]
                opened.touch()
                told = shell.wait_for_status(name, "completed")
        finally:
            opened.touch()

    assert waiting["status"] in ("scheduled", "running")
    (held,) = waiting["held_up_by"]
    assert (held["code"], held["endpoints"]) == ("no-worker", 3)
    assert branch in held["message"]
    assert (before["in_progress"], before["pending"]) == (2, 4)
    assert told["counts"]["successful"] == 6
    assert endpoints.issued() == dict.fromkeys(endpoints.names[:6], 1)
    assert shell.most_at_once(name) == 2
    shards = {
        run["work_queue_name"]: run["state_type"]
        for run in shell.api.children(told["flow_run_id"])
        if "shard" in run["name"]
    }
    assert shards == {"default": "COMPLETED", branch: "COMPLETED"}
    must_agree(shell.stack, job=name)
    shell("executor", "forget", branch)


def test_names_below_a_registered_domain_keep_to_its_limit_and_others_do_not_wait(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """Public CAs count by registered domain: what is below another one is nobody's concern."""
    opened, scarce = tmp_path / "open", f"{endpoints.prefix}.test"
    # Where control of names is proven, domains count.
    whole = endpoints.configuration(
        validation={"method": "http-01", "webroot": str(tmp_path)}, install_timeout_seconds=300
    )
    whole["connectors"][0]["permitted_names"] = [endpoints.zone, scarce]
    moved = [endpoints.endpoint(f"a{number}.www.{scarce}") for number in range(4)]
    for endpoint in moved:
        endpoints.hold(whole, endpoint, opened)
    # They are the first in the job's order.
    whole["endpoints"] = [*moved, *whole["endpoints"][4:]]
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"domain-{endpoints.prefix}"

    with shell.limit(f"domain:{scarce}", 2):
        shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "8")
        try:
            # They wait for each other at the machine, but not for a place.
            shell.wait_until(name, "endpoints in progress", "in_progress", 6)
            before = shell.json("job", "show", name)["counts"]
        finally:
            opened.touch()
        told = shell.wait_for_status(name, "completed")

    assert (before["in_progress"], before["pending"]) == (6, 2)
    assert told["counts"]["successful"] == 8
    assert shell.most_at_once(name, below=scarce) == 2
    must_agree(shell.stack, job=name)


def test_a_rate_limit_of_a_ca_holds_inside_a_job(shell: Shell, endpoints: Estate) -> None:
    """Two may begin at once and then one every two seconds, however soon each is over."""
    slots, rate = 2, 0.5
    whole = endpoints.configuration()
    whole["endpoints"] = whole["endpoints"][:6]
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"rate-{endpoints.prefix}"

    with shell.limit(f"ca:{endpoints.prefix}-ca", slots, rate):
        told = shell.json("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--wait")

    assert told["counts"]["successful"] == 6
    (shard,) = [run for run in shell.api.children(told["flow_run_id"]) if "shard" in run["name"]]
    # No slot can have been taken before that; beginning later than allowed is no fault.
    since = datetime.fromisoformat(shard["start_time"])
    allowed = [slots + rate * (at - since).total_seconds() for at in _begins(shell, name)]
    assert all(begun <= most for begun, most in enumerate(allowed, start=1)), allowed
    must_agree(shell.stack, job=name)


def test_requests_that_run_alone_keep_to_a_limit_too(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """A night of renewals must not do to a device what no job may do."""
    opened = tmp_path / "open"
    whole = endpoints.configuration(install_timeout_seconds=300)
    whole["endpoints"] = whole["endpoints"][:4]
    for endpoint in whole["endpoints"]:
        endpoint["server"] |= {"test": gate(opened, "sleep 0.5"), "timeout": 600}
    shell("apply", "-f", str(endpoints.write(whole)))
    locations = endpoints.locations()[:4]

    def statuses() -> list[str]:
        rows = shell.json("endpoint", "list", "--tag", endpoints.prefix)
        return sorted(row["automation_status"] for row in rows)

    with shell.limit(f"device:{endpoints.prefix}-here", 2):
        runs = [shell.json("request", "start", each)["flow_run_id"] for each in locations]
        try:
            # Those without a place have come to where they ask for one.
            wait_for(
                lambda: all(shell.api.read(run)["run_count"] for run in runs),
                "a worker has begun all of them",
                within=120,
            )
            wait_for(lambda: statuses().count("in-progress") >= 2, "two are at work", within=120)
            before = statuses()
        finally:
            opened.touch()
        wait_for(
            lambda: set(statuses()) == {"automation-successful"},
            "all are done, two at a time",
            within=240,
        )

    assert before == ["automation-requested"] * 2 + ["in-progress"] * 2
    assert shell.most_alone_at_once(locations) == 2
    must_agree(shell.stack, locations=locations)
