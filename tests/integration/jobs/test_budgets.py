"""Limits of a CA or a device hold for all workers, and for requests that run alone."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.process import running, wait_for


def test_two_workers_share_the_budget_of_a_ca_and_each_gets_what_only_it_reaches(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """A branch's servers are reached by the branch's agent alone; the CA is one for all."""
    branch = f"{endpoints.prefix}-branch"
    whole = endpoints.configuration()
    whole["endpoints"] = whole["endpoints"][:6]
    for number, endpoint in enumerate(whole["endpoints"]):
        endpoint["server"]["test"] = endpoints.busy(0.3)
        if number % 2:
            endpoint["executor"] = branch
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"both-{endpoints.prefix}"
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]

    with shell.limit(f"ca:{endpoints.prefix}-ca", 2):
        shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "6")
        # Nobody serves the branch yet: its endpoints wait, the others do not.
        waiting = shell.json("job", "show", name)
        shell.wait_until(name, "successful endpoints", "successful", 1)
        with running(
            [*command, "--name", branch, "--queue", branch],
            log=tmp_path / "agent.log",
            env=shell.stack.env,
            # Those of other tests may be silent by now: exit code 1.
            ready=lambda: branch in shell.stack.cli("executor", "list").stdout,
            within=90,
        ):
            told = shell.wait_for_status(name, "completed")

    assert waiting["status"] in ("scheduled", "running")
    (held,) = waiting["held_up_by"]
    assert (held["code"], held["endpoints"]) == ("no-worker", 3)
    assert branch in held["message"]
    assert told["counts"]["successful"] == 6
    assert endpoints.issued() == dict.fromkeys(endpoints.names[:6], 1)
    assert endpoints.most_at_once() <= 2
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


def test_requests_that_run_alone_keep_to_a_limit_too(shell: Shell, endpoints: Estate) -> None:
    """A night of renewals must not do to a device what no job may do."""
    whole = endpoints.configuration()
    whole["endpoints"] = whole["endpoints"][:3]
    for endpoint in whole["endpoints"]:
        endpoint["server"]["test"] = endpoints.busy(0.3)
    shell("apply", "-f", str(endpoints.write(whole)))
    locations = endpoints.locations()[:3]

    with shell.limit(f"device:{endpoints.prefix}-here", 1):
        for location in locations:
            shell("request", "start", location)

        def all_done() -> bool:
            rows = shell.json("endpoint", "list", "--tag", endpoints.prefix)
            return {row["automation_status"] for row in rows} == {"automation-successful"}

        wait_for(all_done, "all three are done, one after the other", within=120)

    assert endpoints.most_at_once() == 1
    must_agree(shell.stack, locations=locations)
