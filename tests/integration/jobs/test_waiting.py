"""Members of a job that wait for somebody: for an approval, or for their maintenance window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.process import wait_for

ALWAYS = [
    {"start": "00:00", "end": "12:00", "timezone": "UTC"},
    {"start": "12:00", "end": "00:00", "timezone": "UTC"},
]


def test_a_job_asks_for_approvals_and_goes_on_with_each_answer(
    shell: Shell, endpoints: Estate
) -> None:
    """Who must be asked is asked for each endpoint; the others do not wait for that."""
    whole = endpoints.configuration()
    whole["endpoints"] = whole["endpoints"][:4]
    asked = {
        **whole["profiles"][0],
        "name": f"{endpoints.prefix}-asked",
        "approval": {"by": "anyone"},
    }
    whole["profiles"].append(asked)
    for endpoint in whole["endpoints"][:2]:
        endpoint["profile"] = asked["name"]
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"asks-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}")
    shell.wait_until(name, "successful endpoints", "successful", 2)
    first, second = endpoints.locations()[:2]
    before = shell.json("job", "show", name)
    assert before["status"] == "running"
    assert before["counts"]["pending"] == 2
    assert [(one["code"], one["endpoints"]) for one in before["held_up_by"]] == [
        ("approval-pending", 2)
    ]
    assert shell.json("request", "show", first)["status"] == "approval-pending"

    shell("request", "approve", first)
    shell("request", "deny", second)
    told = shell.wait_for_status(name, "completed")

    assert told["counts"]["successful"] == 3
    assert told["counts"]["cancelled"] == 1
    assert set(endpoints.issued()) == {n for n in endpoints.names[:4] if n != endpoints.names[1]}
    members = shell.members(name, "COMPLETED")
    assert {run["name"] for run in members} >= {f"enroll {first}"}
    must_agree(shell.stack, job=name)


def test_resume_in_prefects_pages_approves_where_anybody_may(
    shell: Shell, endpoints: Estate
) -> None:
    """Whoever sits before the run need not open a terminal; who did it is on record."""
    whole = endpoints.configuration(approval={"by": "anyone"})
    whole["endpoints"] = whole["endpoints"][:1]
    shell("apply", "-f", str(endpoints.write(whole)))
    made = shell.json("request", "start", endpoints.locations()[0])
    request = made["request_id"]
    assert made["status"] == "approval-pending"
    assert shell.api.read(made["flow_run_id"])["state_type"] == "PAUSED"
    assert endpoints.issued() == {}

    shell.api.post(f"/flow_runs/{made['flow_run_id']}/resume")
    wait_for(
        lambda: shell.json("request", "show", request)["status"] == "automation-successful",
        "approved, done",
        within=120,
    )

    assert endpoints.issued() == {endpoints.names[0]: 1}
    told = shell.json("audit", "list", "--action", "request.approve", "--object", request)
    assert [one["actor"] for one in told] == ["somebody in Prefect's pages"]


def test_retry_in_prefects_pages_is_no_way_around_an_approval(
    shell: Shell, endpoints: Estate
) -> None:
    """What nobody has answered is asked for anew; what was denied stays so, with what to do."""
    whole = endpoints.configuration(approval={"by": "anyone"})
    whole["endpoints"] = whole["endpoints"][:2]
    shell("apply", "-f", str(endpoints.write(whole)))
    asked, denied = (
        shell.json("request", "start", location) for location in endpoints.locations()[:2]
    )
    shell("request", "cancel", asked["request_id"])
    shell("request", "deny", denied["request_id"])

    for made in (asked, denied):
        shell.api.wait(made["flow_run_id"], "CANCELLED")
        shell.api.retry(made["flow_run_id"])
    shell.api.wait(asked["flow_run_id"], "PAUSED")
    # It was cancelled before, too, but with other words.
    told = "denied the request, so it cannot be retried"
    wait_for(
        lambda: told in (shell.api.read(denied["flow_run_id"])["state"]["message"] or ""),
        "what was denied is refused",
        within=60,
    )

    shown = [shell.json("request", "show", made["request_id"]) for made in (asked, denied)]
    assert [one["status"] for one in shown] == ["approval-pending", "cancelled"]
    assert endpoints.issued() == {}


def test_each_endpoint_waits_for_the_window_of_its_profile(shell: Shell, endpoints: Estate) -> None:
    """Shops are changed at night, the intranet at noon, by one job."""

    def configured(*, opens: bool) -> dict[str, Any]:
        whole = endpoints.configuration()
        whole["endpoints"] = whole["endpoints"][:3]
        whole["profiles"][0]["maintenance_window"] = ALWAYS
        late = {**whole["profiles"][0], "name": f"{endpoints.prefix}-late"}
        if not opens:
            today = datetime.now(UTC).date()
            days = f"{today - timedelta(days=2)}/{today + timedelta(days=2)}"
            late["blackout"] = {"dates": [days], "timezone": "UTC"}
        whole["profiles"].append(late)
        whole["endpoints"][0]["profile"] = late["name"]
        return whole

    shell("apply", "-f", str(endpoints.write(configured(opens=False))))
    name = f"window-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--window")
    shell.wait_until(name, "successful endpoints", "successful", 2)
    before = shell.json("job", "show", name)
    issued = set(endpoints.issued())

    shell("apply", "-f", str(endpoints.write(configured(opens=True))))
    told = shell.wait_for_status(name, "completed")

    assert before["status"] == "running"
    assert before["counts"]["pending"] == 1
    assert [one["code"] for one in before["held_up_by"]] == ["window-closed"]
    assert issued == set(endpoints.names[1:3])
    assert told["counts"]["successful"] == 3
    must_agree(shell.stack, job=name)
