"""Jobs that run: waves, thresholds, pauses, cancellation, budgets, and what is shown of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.mail_server import MailServer, Received, mail_server
from tests.support.process import wait_for


def test_a_job_goes_through_its_waves_and_is_found_everywhere(
    shell: Shell, endpoints: Estate
) -> None:
    """By its name in the inventory, by parent and tag in Prefect, in two artifacts."""
    shell.apply(endpoints)
    name = f"waves-{endpoints.prefix}"

    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}",
        "--canary", "2", "--wave", "4", "--max-failures", "10%", "--wait",
    )  # fmt: skip

    assert told["status"] == "completed"
    assert [(w["canary"], w["total"], w["successful"]) for w in told["waves"]] == [
        (True, 2, 2),
        (False, 4, 4),
        (False, 2, 2),
    ]
    assert told["failures_by_cause"] == {}
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    _waves_waited_for_each_other(shell, name)

    rows = shell.json("endpoint", "list", "--job", name, "--add-column", "job_name")
    assert [row["location"] for row in rows] == sorted(endpoints.locations())
    assert {row["automation_status"] for row in rows} == {"automation-successful"}
    one = shell.json("request", "show", endpoints.locations()[5])
    assert one["job_name"] == name
    assert [step["status"] for step in one["steps"]] == [
        "skipped", "skipped", "completed", "completed", "completed",
    ]  # fmt: skip

    run = told["flow_run_id"]
    members = shell.api.post(
        "/flow_runs/filter",
        flow_runs={
            "parent_flow_run_id": {"any_": [run]},
            "tags": {"all_": [f"job:{name}"]},
            "state": {"type": {"any_": ["COMPLETED"]}},
        },
    )
    assert sorted(member["name"] for member in members) == sorted(
        f"enroll {location}" for location in endpoints.locations()
    )
    assert {tuple(member["tags"]) for member in members} == {(f"job:{name}",)}
    shell.api.wait(run, "COMPLETED")
    _artifacts_name_every_endpoint(shell, run, endpoints, members)
    _runs_of_one_parent_follow_each_other(members)
    for member in members:
        _events_name_what_a_run_belongs_to(shell, member)
    must_agree(shell.stack, job=name)


def _runs_of_one_parent_follow_each_other(members: list[dict[str, Any]]) -> None:
    """At the same time they would wait for each other in Prefect's database, at every state."""
    by_parent: dict[str, list[tuple[str, str]]] = {}
    for member in members:
        times = (member["start_time"], member["end_time"])
        by_parent.setdefault(member["parent_task_run_id"], []).append(times)
    for times_of_one in by_parent.values():
        ordered = [tuple(map(datetime.fromisoformat, times)) for times in sorted(times_of_one)]
        assert all(before[1] <= after[0] for before, after in pairwise(ordered))


def _events_name_what_a_run_belongs_to(shell: Shell, member: dict[str, Any]) -> None:
    """Prefect's automations and its feed go by that; it is the same for all members of a job."""
    assert (member["work_pool_name"], member["work_queue_name"]) == ("agents", "default")
    assert member["labels"]["prefect.deployment.id"] == member["deployment_id"]
    assert member["labels"]["prefect.flow.id"] == member["flow_id"]
    itself = f"prefect.flow-run.{member['id']}"
    found: list[dict[str, Any]] = []

    def is_told() -> bool:
        found[:] = shell.api.post(
            "/events/filter",
            filter={
                "event": {"name": ["prefect.flow-run.Completed"]},
                "resource": {"id": [itself]},
            },
        )["events"]
        return bool(found)

    wait_for(is_told, f"the end of {member['name']} as an event", within=60)
    assert found[0]["resource"]["prefect.resource.name"] == member["name"]
    related = {
        one["prefect.resource.role"]: one["prefect.resource.id"] for one in found[0]["related"]
    }
    assert related == {
        "flow": f"prefect.flow.{member['flow_id']}",
        "deployment": f"prefect.deployment.{member['deployment_id']}",
        "work-queue": f"prefect.work-queue.{member['work_queue_id']}",
        "work-pool": f"prefect.work-pool.{member['work_pool_id']}",
        "task-run": f"prefect.task-run.{member['parent_task_run_id']}",
        "tag": f"prefect.tag.{member['tags'][0]}",
    } | ({"creator": related["creator"]} if "creator" in related else {})


def _waves_waited_for_each_other(shell: Shell, name: str) -> None:
    query = """
      select m.wave, min(r.started_at), max(r.ended_at) from job_members m
      join jobs j on j.id = m.job_id join requests r on r.id = m.request_id
      where j.name = %s group by m.wave order by m.wave
    """
    with psycopg.connect(shell.stack.database_url) as connection:
        waves = connection.execute(query, [name]).fetchall()
    assert all(before[2] <= after[1] for before, after in pairwise(waves))


def _artifacts_name_every_endpoint(
    shell: Shell, run: str, endpoints: Estate, members: list[dict[str, Any]]
) -> None:
    by_type = shell.artifacts(run)
    runs = {member["name"].removeprefix("enroll "): member["id"] for member in members}
    assert set(by_type) == {"progress", "table"}
    assert by_type["progress"] == 100.0
    assert [row["endpoint"] for row in by_type["table"]] == endpoints.locations()
    assert {row["status"] for row in by_type["table"]} == {"Automation successful"}
    for row in by_type["table"]:
        assert row["run"].endswith(f"/runs/flow-run/{runs[row['endpoint']]})")


def test_a_failed_canary_stops_the_job_and_a_retry_runs_the_failed_ones_only(
    shell: Shell, endpoints: Estate
) -> None:
    """What was not begun stays as it was; what is corrected goes on without a second order."""
    first = endpoints.names[0]
    shell.apply(endpoints, broken=[first])
    name = f"canary-{endpoints.prefix}"

    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--canary", "2", "--wait",
        code=1,
    )  # fmt: skip

    assert told["status"] == "failed"
    assert told["stopped"]["code"] == "canary-failed"
    assert told["counts"]["failed"] == 1
    # Whether the other canary had begun by then is chance.
    begun = endpoints.names[: 1 + told["counts"]["successful"]]
    assert len(begun) in (1, 2)
    assert told["counts"]["cancelled"] == 8 - len(begun)
    assert sum(told["failures_by_cause"].values()) == 1
    assert told["failures"][0]["example"] == f"{first}:443"
    artifacts = shell.artifacts(told["flow_run_id"])
    assert "unknown directive" in artifacts["markdown"]
    (failed,) = shell.members(name, "FAILED")
    table = artifacts["table"]
    # Prefect's table renders Markdown: a number with a dot would be a list, counted anew.
    assert table[0]["endpoint"] == f"{first}:443"
    assert table[0]["why"].startswith("Certificate installed: ")
    link = table[0]["run"].removeprefix("[open]")
    assert link.endswith(f"/runs/flow-run/{failed['id']})")
    assert f"- [{first}:443]{link}: " in artifacts["markdown"]
    wait_for(
        lambda: "unknown directive" in shell.api.logs(told["flow_run_id"]),
        "the cause in the log of the job",
        within=20,
    )
    assert "unknown directive" in told["failures"][0]["cause"]
    assert set(endpoints.issued()) == set(begun)
    shell.api.wait(told["flow_run_id"], "FAILED")
    must_agree(shell.stack, job=name)

    shell.apply(endpoints)
    again = shell.json("job", "retry", name, "--wait")

    assert again["status"] == "completed"
    assert again["counts"]["successful"] == len(begun)
    assert endpoints.issued() == dict.fromkeys(begun, 1)
    pages = shell.api.post(
        "/artifacts/latest/filter", artifacts={"flow_run_id": {"any_": [again["flow_run_id"]]}}
    )
    (page,) = [one["data"] for one in pages if one["key"] == "bulk-job-failures"]
    assert "None of its endpoints is left that failed" in page

    rest = shell.json("job", "retry", name, "--rest", "--wait")

    assert rest["counts"]["successful"] == 8
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    must_agree(shell.stack, job=name)
    refused = shell("job", "retry", name, code=2)
    assert "no endpoint of the job" in refused.stderr


def test_failures_below_the_threshold_do_not_stop_a_job(shell: Shell, endpoints: Estate) -> None:
    """One broken server must not hold up the others, and the job says which it was."""
    first, second = endpoints.names[2], endpoints.names[4]
    shell.apply(endpoints, broken={first: "zone is full", second: "agent is gone"})
    name = f"below-{endpoints.prefix}"

    told = shell.json(
        "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--max-failures", "2", "--wait"
    )
    next_ = shell.json(
        "job", "start", f"next-{name}", "--filter", f"tag={endpoints.prefix}", "--canary", "1",
        "--dry-run",
    )  # fmt: skip

    assert told["status"] == "completed"
    assert told["counts"]["successful"] == 6
    assert told["counts"]["failed"] == 2
    # What is told of one endpoint is its own, and that there is more to read.
    (cause,) = told["failures"]
    assert (cause["count"], cause["different"]) == (2, 2)
    assert cause["example"] == f"{first}:443"
    assert "zone is full" in cause["cause"]
    # Next time they come last, in a lane of their own.
    last = [one["location"] for one in next_["eligible"][-2:]]
    assert last == [f"{first}:443", f"{second}:443"]


def test_a_ca_that_refuses_half_way_stops_the_job(shell: Shell, endpoints: Estate) -> None:
    """A pause lets what runs end; afterwards the threshold counts all waves."""
    shell.apply(endpoints, slow=endpoints.names[:2])
    name = f"refuses-{endpoints.prefix}"
    start = ["job", "start", name, "--filter", f"tag={endpoints.prefix}", "--wave", "2"]
    shell(*start, "--max-failures", "1")
    shell.wait_until(name, "endpoints in progress", "in_progress", 1)
    shell("job", "pause", name)
    paused = shell.wait_for_status(name, "paused")
    assert paused["counts"]["in_progress"] == 0
    assert paused["counts"]["failed"] == 0
    assert paused["counts"]["pending"] >= 6
    shell.api.wait(paused["flow_run_id"], "PAUSED")
    rests = shell("job", "show", name, "--watch", code=1)
    assert f"to go on: certrail job resume {name} --wait" in rests.stderr
    whole = endpoints.configuration()
    whole["connectors"][0]["permitted_names"] = ["elsewhere.test"]
    shell("apply", "-f", str(endpoints.write(whole)))

    told = shell.json("job", "resume", name, "--wait", code=1)

    assert told["stopped"]["code"] == "too-many-failures"
    assert told["counts"]["failed"] == 2
    assert told["counts"]["successful"] == 8 - 2 - told["counts"]["cancelled"]
    assert list(told["failures_by_cause"].values()) == [2]
    must_agree(shell.stack, job=name)


def test_cancelling_stops_at_safe_points(shell: Shell, endpoints: Estate) -> None:
    """What runs ends its step; nothing new begins; nothing is left half done."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"cancel-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "2")
    shell.wait_until(name, "endpoints in progress", "in_progress", 1)

    shell("job", "cancel", name)
    told = shell.wait_for_status(name, "cancelled")

    counts = told["counts"]
    assert counts["failed"] == 0
    assert counts["cancelled"] >= 6
    assert counts["cancelled"] + counts["successful"] == 8
    shell.api.wait(told["flow_run_id"], "CANCELLED")
    must_agree(shell.stack, job=name)
    refused = shell("job", "cancel", name, code=2)
    assert "cancelled" in refused.stderr


def test_a_scheduled_job_shows_and_can_be_cancelled(shell: Shell, endpoints: Estate) -> None:
    """Its endpoints are found as scheduled before it begins."""
    shell.apply(endpoints)
    name = f"later-{endpoints.prefix}"
    told = shell.json("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--at", "+2h")
    rows = shell.json("endpoint", "list", "--job", name, "--status", "automation-scheduled")
    shell("job", "cancel", name)

    assert told["status"] == "scheduled"
    assert told["counts"]["scheduled"] == 8
    assert set(shell.api.read(told["flow_run_id"])["tags"]) == {"automation", f"job:{name}"}
    assert len(rows) == 8
    assert shell.json("job", "show", name)["counts"]["cancelled"] == 8
    shell.api.wait(told["flow_run_id"], "CANCELLED")


def test_a_limit_on_a_device_is_honoured(shell: Shell, endpoints: Estate) -> None:
    """A device that takes two changes at a time gets two, whatever the job's concurrency."""
    shell.apply(endpoints, slow=endpoints.names)
    limit = f"device:{endpoints.prefix}-here"
    shell.api.post("/v2/concurrency_limits/", name=limit, limit=2)
    name = f"device-{endpoints.prefix}"

    told = shell.json("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--wait")

    assert told["counts"]["successful"] == 8
    assert shell.most_at_once(name) == 2
    shell.api.delete(f"/v2/concurrency_limits/{limit}")


def test_a_job_begins_at_its_time_and_one_event_tells_of_all_of_it(
    shell: Shell, endpoints: Estate
) -> None:
    """Whoever is told of jobs gets one message, not one for each endpoint."""
    shell.apply(endpoints)
    name = f"event-{endpoints.prefix}"
    made = shell.json("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--at", "+4s")
    followed = shell("job", "show", name, "--watch").stdout.splitlines()
    listed = {job["job_name"]: job for job in shell.json("job", "list")}

    moment = datetime.fromisoformat
    begun = shell.json("job", "show", name)["started_at"]
    query = "select event, payload from outbox where resource = %s order by id"
    with psycopg.connect(shell.stack.database_url) as connection:
        events = connection.execute(query, [f"certrail.job.{name}"]).fetchall()

    assert [event for event, _ in events] == ["certrail.job.started", "certrail.job.completed"]
    assert events[-1][1]["counts"]["successful"] == 8
    assert made["status"] == "scheduled"
    # Whose clock it is does not matter, nor the last few milliseconds.
    assert moment(begun) > moment(made["scheduled_at"]) - timedelta(seconds=1)
    assert followed[0] == f"job {name}: 8 endpoints"
    assert followed[-1] == "Completed: 8 successful of 8"
    assert len(followed) == len(set(followed))
    assert (listed[name]["status"], listed[name]["counts"]["successful"]) == ("completed", 8)


def test_a_job_over_its_threshold_is_told_by_one_mail(shell: Shell, endpoints: Estate) -> None:
    """Prefect's automation sees it: people hear of the job once, and of what failed with it."""
    shell.apply(endpoints, broken=endpoints.names)
    name = f"told-{endpoints.prefix}"
    send = shell.api.get("/deployments/name/send-notifications/every-minute")["id"]
    with mail_server() as mail, _told_by(shell, endpoints, mail):
        ended = shell.json(
            "job", "start", name, "--filter", f"tag={endpoints.prefix}", "--wave", "2",
            "--max-failures", "1", "--wait", code=1,
        )  # fmt: skip

        subject = f"[Certrail] Bulk automation job failed: {name}, 2 of 8 endpoints failed"

        def mails() -> list[Received]:
            found = list(mail.received)
            return [one for one in found if endpoints.prefix in f"{one.subject}{one.text}"]

        wait_for(lambda: any(one.subject == subject for one in mails()), "its mail", within=90)
        # Whatever else would be told is told by the next turn at the latest.
        shell.api.wait(shell.api.run(send), "COMPLETED")
        received = mails()

    assert ended["stopped"]["code"] == "too-many-failures"
    (told,) = received
    assert ended["counts"]["failed"] == 2
    assert told.recipients == ("ops@example.test",)
    for part in (told.text, told.html):
        assert "failed: 2" in part
        assert sum(location in part for location in endpoints.locations()) == 2
        assert f"certrail job retry {name}" in part
        assert f"/runs/flow-run/{ended['flow_run_id']}" in part


@contextmanager
def _told_by(shell: Shell, endpoints: Estate, mail: MailServer) -> Iterator[None]:
    """Let the installation write to its operators, through *mail*."""
    connector = {
        "name": f"{endpoints.prefix}-mail",
        "type": "notifier-smtp",
        "host": "127.0.0.1",
        "port": mail.port,
        "security": "none",
        "sender": "certrail@example.test",
    }
    rules = {"email": ["ops@example.test"], "mail": connector["name"]}
    whole = {"connectors": [connector], "notifications": rules}
    shell("apply", "-f", str(endpoints.write(whole)))
    try:
        yield
    finally:
        nobody: dict[str, Any] = {"notifications": {"email": [], "channels": []}}
        shell("apply", "-f", str(endpoints.write(nobody)))
