"""A job of thousands with a pause, a resume and a killed worker, and what is found of it after.

Of every hundred endpoints one refuses its certificate. At a fifth of the job it
is paused and resumed; at half of it a worker is ended by SIGKILL, and started
again by ``certrail up``. Afterwards everything is compared: certificates at the
CA, runs and task runs in Prefect with the inventory, and endpoints picked out
by the job's name, on the command line and over Prefect's API.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from typing import Any

import httpx
import psycopg

from benchmarks.jobs import (
    CONCURRENCY,
    World,
    say,
    shard_of,
    span,
    status_of,
    until_over,
    world,
)
from benchmarks.options import Options
from certrail.model import Workflow
from certrail.tracker import STEPS, task_run_name

NAME = "bulk-trouble"
_JOB = "thousands"
_EVERY = 100
_SAID = "unknown directive"
_PICKED = 20
_PAGE = 200


def run(options: Options) -> str:
    """Run the job, compare, and return the chapter; what is wrong is said in its table."""
    count, workers = max(options.sizes), max(options.workers[:1])
    with world((count,), workers=workers, redis=options.redis == (True,)) as there:
        whole = there.served.configuration()
        bad = {e["location"] for e in whole["endpoints"][_EVERY // 2 :: _EVERY]}
        for endpoint in whole["endpoints"]:
            endpoint["tags"] = [f"first-{count}"]
            if endpoint["location"] in bad:
                endpoint["server"]["test"] = ["sh", "-c", f"echo {_SAID} >&2; exit 1"]
        there.run("apply", "-f", str(there.served.write(whole)))
        there.run(
            "job", "start", _JOB, "--filter", f"tag=first-{count}", "--max-failures", "5%",
            "--concurrency", str(CONCURRENCY), "--shard", str(shard_of(count, workers)),
        )  # fmt: skip
        said = _disturb(there, count)
        shown = until_over(there, _JOB)
        found = _found(there, shown, bad)
    rows = "\n".join(
        f"| {what} | {told} | {'yes' if good else '**no**'} |" for what, told, good in found
    )
    took = span(shown["started_at"], shown["ended_at"])
    return (
        f"## A job of {count} endpoints with a pause and a killed worker\n\n"
        f"{(__doc__ or '').partition(chr(10))[2].strip()}\n\n"
        f"{workers} worker(s), {CONCURRENCY} at a time. From its beginning to its end, pause and "
        f"restart included: {took:.0f} s ({count / took:.2f} endpoints a second). {said}\n\n"
        f"| what | found | as it should be |\n|---|---|---|\n{rows}\n"
    )


def _disturb(there: World, count: int) -> str:
    """Pause, resume and kill while the job runs; returns what was done when."""
    at = _wait_for(there, count // 5)
    there.run("job", "pause", _JOB)
    with psycopg.connect(there.installation.database_url, autocommit=True) as connection:
        while status_of(connection, _JOB) != "paused":
            time.sleep(0.5)
    rests = there.json("job", "show", _JOB)["counts"]
    time.sleep(3)
    still = there.json("job", "show", _JOB)["counts"]
    if still != rests:
        raise SystemExit(f"the job went on while it was paused: {rests}, then {still}")
    there.run("job", "resume", _JOB)
    say(f"paused and resumed with {at} over")
    killed = _wait_for(there, count // 2)
    os.kill(there.installation.child("deployments.worker"), signal.SIGKILL)
    say(f"the worker was killed with {killed} over")
    return f"Paused with {at} over, the worker killed with {killed} over."


def _wait_for(there: World, least: int) -> int:
    query = """
      select count(*) from requests where ended_at is not null
        and job_id = (select id from jobs where name = %s)
    """
    with psycopg.connect(there.installation.database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(query, [_JOB]).fetchone()
            assert row is not None
            if (over := int(row[0])) >= least:
                return over
            if (status := status_of(connection, _JOB)) not in ("scheduled", "running"):
                raise SystemExit(f"the job is {status} with {over} over")
            time.sleep(0.5)


def _found(there: World, shown: dict[str, Any], bad: set[str]) -> list[tuple[str, str, bool]]:
    """Return what was looked at, what was found, and whether that is right."""
    counts, served = shown["counts"], there.served
    total = len(served.names)
    issued = served.issued()
    lost = sum(name not in issued for name in served.names)
    doubled = sum(number > 1 for number in issued.values())
    done = there.installation.cli(
        "doctor", "--runs", "--job", _JOB, "--settle", "180s", "--json", within=3600
    )
    findings = json.loads(done.stdout)
    wrong = [one for one in findings if one["status"] != "ok"]
    told = findings[0]["message"] if not wrong else f"{len(wrong)} differences: {wrong[:3]}"
    in_prefect = _states(there)
    expected = {"COMPLETED": total - len(bad), "FAILED": len(bad)}
    found = [
        (
            "endpoints successful / failed, of all",
            f"{counts['successful']} / {counts['failed']} of {counts['total']}",
            (counts["successful"], counts["failed"]) == (total - len(bad), len(bad)),
        ),
        ("certificates lost / doubled at the CA", f"{lost} / {doubled}", lost == doubled == 0),
        ("runs in Prefect by state, by the job's tag", str(in_prefect), in_prefect == expected),
        ("every run and task run in Prefect as the inventory has it", told, not wrong),
    ]
    picked = random.Random(0).sample(
        sorted(set(served.locations()) - bad), min(_PICKED, total // 2)
    )
    for kind, some in (("failed", sorted(bad)[:_PICKED]), ("successful", picked)):
        right = sum(_is_found(there, one, failed=kind == "failed") for one in some)
        found.append(
            (
                f"{kind} endpoints found by the job's name, with steps and cause, by "
                "`endpoint list`, `request show` and Prefect's API",
                f"{right} of {len(some)}",
                right == len(some),
            )
        )
    return found


def _api(there: World, path: str, **body: Any) -> Any:
    with httpx.Client(base_url=there.installation.api_url, timeout=60) as client:
        reply = client.post(path, json=body)
        reply.raise_for_status()
        return reply.json()


def _members(location: str = "") -> dict[str, Any]:
    chosen: dict[str, Any] = {"tags": {"all_": [f"job:{_JOB}"]}}
    return {**chosen, "name": {"like_": location}} if location else chosen


def _states(there: World) -> dict[str, int]:
    """Count the endpoints' runs of the job in Prefect by their state."""
    counted = {}
    for kind in ("COMPLETED", "FAILED", "CANCELLED", "CRASHED", "RUNNING", "PENDING", "SCHEDULED"):
        number = _api(
            there,
            "/flow_runs/count",
            flow_runs={**_members(), "state": {"type": {"any_": [kind]}}},
            flows={"name": {"any_": [str(Workflow.WEB_SERVER)]}},
        )
        if number:
            counted[kind] = int(number)
    return counted


def _is_found(there: World, location: str, *, failed: bool) -> bool:
    """Look for an endpoint as an operator would, by the job's name, here and in Prefect."""
    status = "automation-failed" if failed else "automation-successful"
    listed = there.json("endpoint", "list", "--job", _JOB, "--filter", f"location={location}")
    if [(row["job_name"], row["automation_status"]) for row in listed] != [(_JOB, status)]:
        return False
    request = there.json("request", "show", location)
    last = next((one for one in request["steps"] if one["status"] == "failed"), None)
    if request["job_name"] != _JOB or len(request["steps"]) != len(STEPS[Workflow.WEB_SERVER]):
        return False
    if failed and (last is None or _SAID not in last["cause"] or not last["remedy"]):
        return False
    runs = _api(there, "/flow_runs/filter", flow_runs=_members(location), limit=_PAGE)
    if [run["id"] for run in runs] != [request["flow_run_id"]]:
        return False
    state = runs[0]["state"]
    steps = _api(there, "/task_runs/filter", flow_runs={"id": {"any_": [runs[0]["id"]]}})
    titles = {task_run_name(Workflow.WEB_SERVER, t) for t in STEPS[Workflow.WEB_SERVER]}
    if failed:
        begun = {one["name"] for one in steps}
        return state["type"] == "FAILED" and _SAID in state["message"] and begun <= titles
    return state["type"] == "COMPLETED" and {one["name"] for one in steps} == titles
