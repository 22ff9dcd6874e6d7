"""`certrail request` against a running installation, a real CA and a real web server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest

from tests.integration.cli.conftest import Shell
from tests.support.prefect_api import PrefectApi

TITLES = [
    "ACME account created",
    "Domain validated",
    "Certificate issued",
    "Certificate installed",
    "Testing installation",
]


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


def test_a_request_from_start_to_end(shell: Shell, api: PrefectApi) -> None:
    """The documented steps, the same in JSON, in the list and in Prefect."""
    location = shell.location("www")

    done = shell.json("request", "start", location, "--wait")

    assert done["status"] == "automation-successful"
    assert done["action"] == "enroll"
    assert done["reason"]["code"] == "requested"
    assert [step["title"] for step in done["steps"]] == TITLES
    assert {step["status"] for step in done["steps"]} == {"completed"}
    assert len(done["history"]) == 5
    run = api.read(done["flow_run_id"])
    assert run["name"] == f"enroll {location}"
    assert run["parameters"] == {"request_id": done["request_id"]}
    assert run["labels"]["certrail.endpoint"] == location
    assert run["labels"]["certrail.profile"] == "cli-public-web"
    assert run["labels"]["certrail.request"] == done["request_id"]
    assert run["tags"] == ["automation"]
    assert done["flow_run_url"] == f"{shell.stack.ui_url}/runs/flow-run/{run['id']}"
    shown = shell.json("request", "show", location)
    assert shown == done
    (row,) = shell.json("endpoint", "list", "--filter", f"location={location}")
    assert row["automation_status"] == "automation-successful"
    assert row["fingerprint"] == done["certificate"]["fingerprint"]
    assert row["flow_run_url"] == done["flow_run_url"]
    assert row["security_findings"] == []
    _is_found_at_the_endpoint(shell, location, done)
    _is_among_those_that_expire(shell, row)


def _is_found_at_the_endpoint(shell: Shell, location: str, done: Mapping[str, Any]) -> None:
    """The automation configuration leads to the last request and to its run."""
    found = shell.json("endpoint", "show", location)
    automation = found["automation"]
    assert automation["request_id"] == done["request_id"]
    assert automation["flow_run_url"] == done["flow_run_url"]
    assert (automation["status"], automation["profile"]) == (done["status"], "cli-public-web")
    assert found["request"]["request_id"] == done["request_id"]
    assert found["certificate"]["fingerprint"] == done["certificate"]["fingerprint"]
    shown = shell("endpoint", "show", location).stdout
    assert done["flow_run_url"] in shown
    assert done["request_id"] in shown


def _is_among_those_that_expire(shell: Shell, row: Mapping[str, Any]) -> None:
    """Within a day more than are left, and not within those that are; by its profile too."""
    days, profile = row["days_left"], row["profile"]
    within = ["endpoint", "list", "--profile", profile, "--expires-within"]

    assert row["location"] in {one["location"] for one in shell.json(*within, f"{days + 1}d")}
    assert row["location"] not in {one["location"] for one in shell.json(*within, f"{days}d")}
    of_profile = shell.json("endpoint", "list", "--profile", profile)
    assert {one["profile"] for one in of_profile} == {profile}
    assert row["location"] in {one["location"] for one in of_profile}
    assert shell.json("endpoint", "list", "--profile", "nothing") == []


def test_following_a_request_prints_each_step_once(shell: Shell) -> None:
    """Where no terminal is, plain lines go into the log of a pipeline."""
    location = shell.location("wait")
    lines = shell("request", "start", location, "--wait").stdout.splitlines()
    later = shell("request", "show", location, "--watch").stdout.splitlines()

    for number, title in enumerate(TITLES, start=1):
        for told in (lines, later):
            assert sum(f"✓ {number}. {title}: completed" in line for line in told) == 1
    assert "Automation successful" in lines
    assert "Automation successful" in later
    assert any(line.startswith("Prefect: http") for line in lines)


def test_a_failed_request_says_why_and_goes_on_after_the_correction(
    shell: Shell, api: PrefectApi
) -> None:
    """A retry begins at the failed step of the same run, with the corrected configuration."""
    location = shell.location("bad")
    configuration = shell.configuration()
    wrong = next(one for one in configuration["endpoints"] if one["location"] == location)
    wrong["server"]["site"] = "nothere.example.test"
    wrong["names"] = [location.removesuffix(":443")]
    shell("apply", "-f", str(shell.write("wrong.yaml", configuration)))

    failed = shell("request", "start", location, "--wait", code=1).stdout

    assert "✗ 4. Certificate installed: failed" in failed
    assert "cause: no server block has server_name nothere.example.test" in failed
    assert "remedy: " in failed
    assert "certrail request retry " in failed
    first = shell.json("request", "show", location)
    assert first["status"] == "automation-failed"
    # Others' failed endpoints may be in the same inventory.
    in_view = ["endpoint", "list", "--view", "failed"]
    assert location in {row["location"] for row in shell.json(*in_view)}
    # Corrected, and names added meanwhile: those wait for the next order.
    configuration = shell.configuration()
    right = next(one for one in configuration["endpoints"] if one["location"] == location)
    right["names"] = [location.removesuffix(":443"), "more.cli.example.test"]
    shell("apply", "-f", str(shell.write("right.yaml", configuration)))

    done = shell.json("request", "retry", location, "--wait")

    assert done["status"] == "automation-successful"
    assert location not in {row["location"] for row in shell.json(*in_view)}
    assert done["request_id"] == first["request_id"]
    assert done["flow_run_id"] == first["flow_run_id"]
    assert done["run_count"] == 2
    assert done["certificate"] == first["certificate"]
    assert [step["attempts"] for step in done["steps"]][:3] == [1, 1, 1]
    assert api.wait(done["flow_run_id"], "COMPLETED")["run_count"] == 2
    again = shell("request", "retry", location, code=2).stderr
    assert "only a failed or cancelled request can be retried" in again
    redeployed = shell.json("request", "start", location, "--action", "redeploy", "--wait")
    assert redeployed["certificate"] == done["certificate"]
    assert redeployed["status"] == "automation-successful"


def test_a_scheduled_request_is_cancelled_in_both_places_and_can_be_revived(
    shell: Shell, api: PrefectApi
) -> None:
    """Prefect must not start what was cancelled; a retry makes it the same request again."""
    location = shell.location("cancelled")

    made = shell.json("request", "start", location, "--at", "+2h")

    assert made["status"] == "automation-scheduled"
    assert made["scheduled_at"] is not None
    assert api.read(made["flow_run_id"])["state_type"] == "SCHEDULED"
    # By which Prefect's list of what will begin has no housekeeping.
    assert api.read(made["flow_run_id"])["tags"] == ["automation"]
    second = shell("request", "start", location, code=2).stderr
    assert f"{location} has an active request already" in second
    gone = shell.json("request", "cancel", made["request_id"][:13])
    assert gone["status"] == "cancelled"
    assert api.read(gone["flow_run_id"])["state_type"] == "CANCELLED"
    assert "over already" in shell("request", "cancel", location, code=2).stderr
    # The run that is gone is replaced by another one.
    httpx.delete(f"{shell.stack.api_url}/flow_runs/{made['flow_run_id']}").raise_for_status()
    done = shell.json("request", "retry", location, "--wait")
    assert done["request_id"] == made["request_id"]
    assert done["flow_run_id"] != made["flow_run_id"]
    assert done["status"] == "automation-successful"


def test_a_request_that_prefect_was_not_told_of_starts_later(shell: Shell) -> None:
    """The row is made first; the reconciling flow hands it over when Prefect answers again."""
    location = shell.location("www")
    start = ["request", "start", location, "--at", "+3h"]
    said = shell(*start, code=3, env=shell.without_prefect()).stderr

    assert "is stored, but was not handed to Prefect" in said
    assert f"certrail request show {location}" in said
    made = shell.json("request", "show", location)
    assert (made["flow_run_id"], made["status"]) == (None, "automation-scheduled")
    assert shell.json("request", "cancel", location)["status"] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["start", "nowhere.cli.example.test:443"], "the inventory has no endpoint"),
        (["start", "www.cli.example.test:443", "--at", "2020-01-01T00:00Z"], "is in the past"),
        (["start", "www.cli.example.test:443", "--window"], "has no maintenance window"),
        (["start", "www.cli.example.test:443", "--window", "--at", "+1h"], "exclude each other"),
        (["show", "nothing"], "there is no request nothing"),
        (["retry", "nothing"], "there is no request nothing"),
        (["cancel", "nothing"], "there is no request nothing"),
    ],
)
def test_wrong_calls(arguments: list[str], told: str, shell: Shell) -> None:
    """Exit code 2, and a sentence that says what to do."""
    said = shell("request", *arguments, code=2).stderr

    assert told in said
    assert "Remedy: " in said


def test_the_list_is_newest_first(shell: Shell) -> None:
    """What happened last is what people ask for."""
    location = shell.location("cancelled")
    for _ in range(2):
        shell("request", "start", location, "--at", "+2h")
        shell("request", "cancel", location)

    found = shell.json("request", "list", "--limit", "3")

    assert [one["created_at"] for one in found] == sorted(
        (one["created_at"] for one in found), reverse=True
    )
    assert [one["location"] for one in found[:2]] == [location] * 2
    only = shell.json("request", "list", "--location", location)
    assert {one["location"] for one in only} == {location}
    assert location in shell("request", "list").stdout
