"""What ``job start`` decides before anything runs, and what it refuses."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.integration.jobs.conftest import Shell
from tests.support.bulk import Estate, chosen


def test_a_dry_run_reports_and_changes_nothing(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """It is looked at before thousands of endpoints are touched."""
    shell.apply(endpoints)
    shell("request", "start", endpoints.locations()[0], "--at", "+2h")
    file = chosen([*endpoints.locations(), "nowhere.bulk.test:443"], tmp_path)

    told = shell.json(
        "job", "start", "dry", "--locations-file", str(file), "--canary", "2", "--wave", "3",
        "--dry-run",
    )  # fmt: skip
    shell("request", "cancel", endpoints.locations()[0])

    assert [one["location"] for one in told["eligible"]] == endpoints.locations()[1:]
    assert {one["location"]: one["reason"]["code"] for one in told["not_eligible"]} == {
        endpoints.locations()[0]: "active-request",
        "nowhere.bulk.test:443": "unknown-endpoint",
    }
    assert [(wave["canary"], wave["total"]) for wave in told["waves"]] == [
        (True, 2),
        (False, 3),
        (False, 2),
    ]
    assert {one["name"] for one in told["budgets"]} == {
        f"ca:{endpoints.prefix}-ca",
        f"device:{endpoints.prefix}-here",
    }
    assert told["begins_at"] < told["expected_finish"]
    assert "there is no job dry" in shell("job", "show", "dry", code=2).stderr
    rows = shell.json("endpoint", "list", "--tag", endpoints.prefix)
    assert not any(row["job_name"] for row in rows)


def test_a_dry_run_tells_of_a_ca_that_throttles(shell: Shell, endpoints: Estate) -> None:
    """Whoever starts it tonight wants to know that it begins later, and how much."""
    shell.apply(endpoints)
    dry = ["job", "start", f"later-{endpoints.prefix}", "--filter", f"tag={endpoints.prefix}"]
    until = datetime.now(UTC) + timedelta(minutes=10)
    with psycopg.connect(shell.stack.database_url) as connection:
        connection.execute(
            "insert into budget_pauses (budget, until, why) values (%s, %s, 'too many orders')",
            [f"ca:{endpoints.prefix}-ca", until],
        )

    told = shell.json(*dry, "--dry-run")
    text = shell(*dry, "--dry-run").stdout
    after = shell.json(*dry, "--at", "+1h", "--dry-run")

    (pause,) = told["waits_for"]
    assert (pause["budget"], pause["why"]) == (f"ca:{endpoints.prefix}-ca", "too many orders")
    assert datetime.fromisoformat(told["expected_finish"]) > until
    assert 0 < told["later_by_seconds"] <= 600
    assert f"waits: {endpoints.prefix}-ca is left alone until" in text
    assert re.search(r"expected to be over at .*, \d+ minutes? later because of that", text)
    # By then it is left alone no more.
    assert (after["waits_for"], after["later_by_seconds"]) == ([], 0)


def test_the_expected_finish_waits_for_the_last_window(shell: Shell, endpoints: Estate) -> None:
    """One that is open now says nothing about endpoints whose window opens tonight."""
    now = datetime.now(UTC)
    opens = (now + timedelta(hours=3)).replace(second=0, microsecond=0)
    whole = endpoints.configuration(maintenance_window={"start": "00:00", "end": "00:00"})
    late = {
        **whole["profiles"][0],
        "name": f"{endpoints.prefix}-late",
        "maintenance_window": {
            "start": f"{opens:%H:%M}",
            "end": f"{opens + timedelta(hours=1):%H:%M}",
        },
    }
    whole["profiles"].append(late)
    whole["endpoints"][0]["profile"] = late["name"]
    shell("apply", "-f", str(endpoints.write(whole)))
    dry = ["job", "start", f"tonight-{endpoints.prefix}", "--filter", f"tag={endpoints.prefix}"]

    told = shell.json(*dry, "--window", "--dry-run")
    text = shell(*dry, "--window", "--dry-run").stdout

    assert datetime.fromisoformat(told["begins_at"]) < opens
    assert datetime.fromisoformat(told["expected_finish"]) > opens
    first, last = told["windows"]
    assert first["profile"] == endpoints.prefix
    assert last["profile"] == late["name"]
    assert datetime.fromisoformat(last["opens_at"]) == opens
    assert f"window of the profile {late['name']}: opens at" in text
    assert "later where a window closes" in text


def test_a_limit_that_is_switched_off_holds_nobody_up(shell: Shell, endpoints: Estate) -> None:
    """The plan says what a worker does with it, not the default of one that nobody has set."""
    shell.apply(endpoints)
    dry = ["job", "start", f"off-{endpoints.prefix}", "--filter", f"tag={endpoints.prefix}"]
    name = f"ca:{endpoints.prefix}-ca"

    with shell.limit(name, 1, active=False):
        told = shell.json(*dry, "--dry-run")
        text = shell(*dry, "--dry-run").stdout

    (budget,) = (one for one in told["budgets"] if one["name"] == name)
    assert (budget["is_set"], budget["active"], budget["slots"]) == (True, False, None)
    assert re.search(rf"{name} +8 +off +set", text)


def test_an_endpoint_in_another_request_is_left_out_not_failed(
    shell: Shell, endpoints: Estate
) -> None:
    """Two requests for one endpoint would put up two certificates."""
    shell.apply(endpoints)
    busy = endpoints.locations()[3]
    shell("request", "start", busy, "--at", "+2h")
    name = f"others-{endpoints.prefix}"

    told = shell.json("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--wait")
    shell("request", "cancel", busy)

    assert told["status"] == "completed"
    assert told["counts"]["successful"] == 7
    assert told["counts"]["skipped"] == 1
    assert told["counts"]["failed"] == 0
    assert len(endpoints.issued()) == 7


def test_a_name_is_used_once(shell: Shell, endpoints: Estate) -> None:
    """Otherwise two jobs would be shown as one."""
    shell.apply(endpoints)
    start = ["job", "start", f"twice-{endpoints.prefix}", "--filter", f"tag={endpoints.prefix}"]
    shell(*start, "--at", "+3h")

    again = shell(*start, "--dry-run", code=2)
    shell("job", "cancel", f"twice-{endpoints.prefix}")

    assert "already" in again.stderr
    assert "Choose another name" in again.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--filter", "tag=nobody-has-this"], "no endpoint was chosen"),
        (["--filter", "color=red"], "there is no field"),
        ([], "nothing says which endpoints"),
        (["--view", "no-such-view"], "there is no view"),
        (["--locations-file", "/nowhere"], "cannot be read"),
        (["--filter", "tag=x", "--locations-file", "/nowhere"], "neither"),
        (["--view", "unmanaged", "--max-failures", "many"], "percentage"),
        (["--view", "unmanaged", "--max-failures", "120%"], "percentage"),
        (["--view", "unmanaged", "--canary", "0"], "at least 1"),
        (["--view", "unmanaged", "--concurrency", "0"], "at least 1"),
    ],
)
def test_a_call_that_cannot_be_meant_is_refused(
    shell: Shell, endpoints: Estate, options: list[str], said: str
) -> None:
    """Cause and remedy, exit code 2, and nothing is made."""
    shell.apply(endpoints)
    (unmanaged := endpoints.folder / "more.yaml").write_text(
        f"endpoints: [{{location: 'bare.{endpoints.prefix}.test:443'}}]"
    )
    shell("apply", "-f", str(unmanaged))

    done = shell("job", "start", f"wrong-{endpoints.prefix}", *options, code=2)

    assert said in done.stderr
    assert "there is no job" in shell("job", "show", f"wrong-{endpoints.prefix}", code=2).stderr


def test_a_job_that_nobody_can_take_part_in_is_refused(shell: Shell, endpoints: Estate) -> None:
    """The reasons are in the error; an empty job would look like a success."""
    whole = endpoints.configuration()
    whole["endpoints"] = [
        {"location": location, "tags": [endpoints.prefix]} for location in endpoints.locations()
    ]
    shell("apply", "-f", str(endpoints.write(whole)))

    done = shell(
        "job", "start", f"none-{endpoints.prefix}", "--filter", f"tag={endpoints.prefix}", code=2
    )

    assert "none of 8 chosen endpoints" in done.stderr
    assert "not-configured" in done.stderr
