"""The command that makes a bulk job, or cancels it, is killed before each row that it writes.

What it leaves is a whole job or none, and a job that is cancelled or not; the
operator's second try and the repair of every minute bring it to its end.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.chaos.records import audit_trail_is_whole, nothing_is_held
from tests.support import command_kills
from tests.support.agreement import must_agree, repair
from tests.support.bulk import Estate, chosen, estate
from tests.support.prefect_api import PrefectApi
from tests.support.stack import Stack

MADE = (
    "insert jobs",
    "insert requests",
    "insert steps",
    "insert job_members",
    "insert job_shards",
    "insert audit",
    "update audit: hash, seq",
    "update jobs: flow_run_id",
)
CANCELLED = (
    "update jobs: cancel_requested",
    "insert audit",
    "update requests: ended_at, status",
    "update steps: status",
    "update audit: hash, seq",
    "update jobs: ended_at, status",
    "insert outbox",
)
EACH = 2  # endpoints of each job
AT = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d 12:00}"


@dataclass
class Desk:
    """An operator's desk: an installation with endpoints for every case."""

    stack: Stack
    served: Estate
    api: PrefectApi
    folder: Path

    def start(self, number: int, **how: Any) -> int:
        """Make the job of a case, for a time when no test runs; returns the exit code."""
        folder = self.folder / f"{number}"
        folder.mkdir(exist_ok=True)
        file = chosen(self.served.locations()[number * EACH : (number + 1) * EACH], folder)
        options = ("--locations-file", str(file), "--at", AT)
        return self.stack.forked("job", "start", job(number), *options, **how).returncode

    def cancel(self, number: int, **how: Any) -> int:
        """Cancel it; returns the exit code."""
        return self.stack.forked("job", "cancel", job(number), **how).returncode

    def killed(self, number: int, write: str, *, cancel: bool) -> None:
        """Kill the command before it makes a write."""
        with command_kills.catching(self.stack.database_url, job(number), write) as caught:

            def kill(pid: int) -> None:
                caught()
                os.kill(pid, signal.SIGKILL)

            assert (self.cancel if cancel else self.start)(number, begun=kill) == -signal.SIGKILL

    def rows(self, number: int) -> dict[str, Any]:
        """Count what there is of a job, by kind."""
        with psycopg.connect(self.stack.database_url) as connection:

            def count(query: str) -> int:
                row = connection.execute(query, {"job": job(number)}).fetchone()
                assert row is not None
                return int(row[0])

            of = "from jobs j join requests r on r.job_id = j.id where j.name = %(job)s"
            return {
                "jobs": count("select count(*) from jobs where name = %(job)s"),
                "cancelled": count(
                    "select count(*) from jobs where name = %(job)s and status = 'cancelled'"
                ),
                "requests": count(f"select count(*) {of}"),
                "requests cancelled": count(f"select count(*) {of} and r.status = 'cancelled'"),
                "steps": count(
                    f"select count(*) from steps where request_id in (select r.id {of})"
                ),
                "members": count(
                    "select count(*) from job_members m join jobs j on j.id = m.job_id"
                    " where j.name = %(job)s"
                ),
                "shards": count(
                    "select count(*) from job_shards s join jobs j on j.id = s.job_id"
                    " where j.name = %(job)s"
                ),
                "asked": count(
                    "select count(*) from audit where object = %(job)s and action = 'job.start'"
                ),
                "asked to cancel": count(
                    "select count(*) from audit where object = %(job)s and action = 'job.cancel'"
                ),
                "told": count("select count(*) from outbox where payload ->> 'job_name' = %(job)s"),
                "runs": len(self.runs(number)),
            }

    def runs(self, number: int) -> list[dict[str, Any]]:
        """Return the flow runs that Prefect has for a job."""
        found: list[dict[str, Any]] = self.api.post(
            "/flow_runs/filter", flow_runs={"tags": {"all_": [f"job:{job(number)}"]}}
        )
        return found

    def repair(self, numbers: range) -> None:
        """Do what happens by itself a minute later."""
        with psycopg.connect(self.stack.database_url) as connection:
            connection.execute(
                "update jobs set created_at = created_at - interval '1 minute'"
                " where name = any(%s)",
                [[job(number) for number in numbers]],
            )
        repair(self.api)


def job(number: int) -> str:
    """Return the name of a case's job."""
    return f"command{number}"


STARTS = range(1, 1 + len(MADE))
CANCELS = range(STARTS.stop, STARTS.stop + len(CANCELLED))
WHOLE = {
    "jobs": 1, "cancelled": 0, "requests": EACH, "requests cancelled": 0, "steps": 5 * EACH,
    "members": EACH, "shards": 1, "asked": 1, "asked to cancel": 0, "told": 0, "runs": 1,
}  # fmt: skip
NOTHING = dict.fromkeys(WHOLE, 0)
OVER = WHOLE | {"cancelled": 1, "requests cancelled": EACH, "asked to cancel": 1, "told": 1}


@pytest.fixture(scope="module")
def desk(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("commands")
    with (
        estate(folder / "e", "cmd", EACH * CANCELS.stop) as served,
        closing(PrefectApi(installation.api_url)) as api,
        command_kills.installed(installation.database_url),
    ):
        applied = installation.cli("apply", "-f", str(served.write()))
        assert applied.returncode == 0, applied.stderr
        yield Desk(installation, served, api, folder)


def test_a_job_is_made_and_cancelled_whole_or_not_at_all(desk: Desk) -> None:
    """A clean job tells which rows there are; before each of them the command is killed once."""
    url = desk.stack.database_url
    command_kills.watch(url, job(0))
    assert desk.start(0) == 0
    assert set(command_kills.writes(url, job(0))) == set(MADE)
    assert desk.rows(0) == WHOLE
    command_kills.watch(url, job(0))
    assert desk.cancel(0) == 0
    assert set(command_kills.writes(url, job(0))) == set(CANCELLED)
    assert desk.rows(0) == OVER

    for number, write in zip(STARTS, MADE, strict=True):
        desk.killed(number, write, cancel=False)
        left = desk.rows(number)
        # Its run is there, or is made by the repair; at the audit's chain it was committed already.
        assert left in (NOTHING, WHOLE, WHOLE | {"runs": 0}), write
        is_made = left["jobs"] == 1
        assert is_made == (write in ("update audit: hash, seq", "update jobs: flow_run_id")), write
        assert desk.start(number) == (2 if is_made else 0), write
    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(desk.start, CANCELS)) == {0}
    for number, write in zip(CANCELS, CANCELLED, strict=True):
        desk.killed(number, write, cancel=True)
        left = desk.rows(number)
        asked = OVER | {"cancelled": 0, "told": 0}
        assert left in (WHOLE, asked), write
        if left == WHOLE:
            assert desk.cancel(number) == 0, write
    desk.repair(range(STARTS.start, CANCELS.stop))

    for number in STARTS:
        assert desk.rows(number) == WHOLE, MADE[number - STARTS.start]
        assert desk.cancel(number) == 0
    for number in (*STARTS, *CANCELS):
        assert desk.rows(number) == OVER
        assert [run["state"]["type"] for run in desk.runs(number)] == ["CANCELLED"]
    must_agree(desk.stack, locations=desk.served.locations())
    # Nothing was ordered, so there is no key to look for.
    with psycopg.connect(desk.stack.database_url) as connection:
        of = "select r.id from requests r join jobs j on j.id = r.job_id where j.name = any(%s)"
        jobs = [job(number) for number in range(CANCELS.stop)]
        nothing_is_held(desk.stack, [id_ for (id_,) in connection.execute(of, [jobs])])
    audit_trail_is_whole(desk.stack)
