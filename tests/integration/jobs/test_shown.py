"""Jobs and requests followed live: redrawn in place on a terminal, one object for programs."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.jobs.conftest import BROKEN, Shell
from tests.support.bulk import Estate
from tests.support.terminal import certrail

COUNTS = [
    "total", "pending", "scheduled", "in_progress", "successful", "failed", "skipped", "cancelled",
]  # fmt: skip
DOCUMENTED = {
    "job_name", "status", "counts", "waves", "started_at", "ended_at", "flow_run_url",
    "failures_by_cause",
}  # fmt: skip


def _held(shell: Shell, endpoints: Estate, count: int, go: Path) -> list[str]:
    """Let the first *count* endpoints wait for *go* while they install, and the next one fail.

    Returns the locations of all these.
    """
    whole = endpoints.configuration()
    for endpoint in whole["endpoints"][:count]:
        endpoints.hold(whole, endpoint, go)
    whole["endpoints"][count]["server"]["test"] = BROKEN
    shell("apply", "-f", str(endpoints.write(whole)))
    return endpoints.locations()[: count + 1]


def test_a_job_is_followed_live(shell: Shell, endpoints: Estate, tmp_path: Path) -> None:
    """From the endpoints of a view to its end, of which one event tells that something failed."""
    go = tmp_path / "go"
    locations = _held(shell, endpoints, 2, go)
    name = f"shown-{endpoints.prefix}"
    shell("view", "save", name, "--filter", f"location={','.join(locations)}")

    made = shell.json("job", "start", name, "--view", name, "--max-failures", "1")
    with (
        ThreadPoolExecutor(1) as pool,
        certrail("job", "show", name, "--watch", env=shell.stack.env) as terminal,
    ):
        followed = pool.submit(shell.json, "job", "show", name, "--watch")
        try:
            terminal.expect("in progress")
            assert not followed.done()
        finally:
            go.touch()
        told = followed.result(timeout=120)
        assert terminal.ended() == 0

    assert made["counts"]["total"] == 3
    assert {row["location"] for row in shell.json("endpoint", "list", "--job", name)} == set(
        locations
    )
    _is_as_documented(shell, name, told)
    screen = terminal.screen()
    assert screen[0] == f"job {name}: Completed"
    assert "2 successful, 1 failed of 3" in screen[1]
    for what in (
        f"job {name}",
        "endpoints ",
        "failed    1 × InvalidRequest in ",
        "     remedy: ",
    ):
        assert len([line for line in screen if line.startswith(what)]) == 1, screen
    assert f"When it is corrected: certrail job retry {name}" in screen
    (failed,) = shell.json("endpoint", "list", "--view", "failed", "--job", name)
    assert failed["location"] == locations[2]
    # In one piece, so that it can be opened.
    assert told["flow_run_url"] in screen
    with psycopg.connect(shell.stack.database_url) as connection:
        query = "select event, payload from outbox where resource = %s order by id"
        told_of = connection.execute(query, [f"certrail.job.{name}"]).fetchall()
    assert [event for event, _ in told_of] == [
        "certrail.job.started", "certrail.job.completed", "certrail.job.failed-in-part",
    ]  # fmt: skip
    (failure,) = told_of[-1][1]["failures"]
    assert (failure["count"], failure["example"]) == (1, locations[2])


def _is_as_documented(shell: Shell, name: str, told: Mapping[str, Any]) -> None:
    """Every key that other programs rely on, and the same afterwards as at the end of a watch."""
    assert set(told) >= DOCUMENTED
    assert (told["job_name"], told["status"]) == (name, "completed")
    assert list(told["counts"]) == COUNTS
    assert (told["counts"]["successful"], told["counts"]["failed"]) == (2, 1)
    assert [wave["total"] for wave in told["waves"]] == [3]
    assert told["failures_by_cause"] == {"InvalidRequest": 1}
    for key in ("started_at", "ended_at"):
        assert told[key].endswith("Z")
    assert datetime.fromisoformat(told["started_at"]) < datetime.fromisoformat(told["ended_at"])
    run = f"/runs/flow-run/{told['flow_run_id']}"
    assert told["flow_run_url"] == f"{shell.stack.ui_url}{run}"
    assert shell.json("job", "show", name) == told


def test_a_request_is_followed_live(shell: Shell, endpoints: Estate, tmp_path: Path) -> None:
    """Each step where it stands now, in place; at the end the certificate and the run."""
    go = tmp_path / "go"
    location, _ = _held(shell, endpoints, 1, go)
    made = shell.json("request", "start", location)

    with certrail("request", "show", location, "--watch", env=shell.stack.env) as terminal:
        try:
            terminal.expect("▶ 4. Certificate installed")
        finally:
            go.touch()
        terminal.expect(f"{location}: Automation successful")
        assert terminal.ended() == 0

    screen = terminal.screen()
    assert screen[0] == f"enroll {location}: Automation successful"
    steps = [line.split() for line in screen if line.strip()[:2] in ("✓ ", "↷ ")]
    assert [step[1] for step in steps] == ["1.", "2.", "3.", "4.", "5."], screen
    assert all(step[-1] == "s" and float(step[-2]) < 100 for step in steps)
    assert len([line for line in screen if line.startswith("certificate ")]) == 1
    assert made["flow_run_url"] in screen
