"""The clock of the Prefect server is wrong by hours, and is put right under requests.

All times in Prefect are the server's: when a run may begin, what is late, when a lease of a
limit is over, for when the scheduler makes runs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from certrail.settings import read_run_file
from tests.chaos.records import must_be_whole_at_last
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, chosen, estate
from tests.support.handshake import fingerprint_at
from tests.support.machine_clock import MachineClock
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack, stack

JOB = 3  # endpoints of each job, of which the first waits until it is let go
EVERY_MINUTE = ("reconcile", "renewal-sweep", "send-notifications")


@dataclass(frozen=True)
class Yard:
    """An installation whose Prefect server goes by a clock of its own, and endpoints."""

    stack: Stack
    api: PrefectApi
    served: Estate
    clock: MachineClock
    folder: Path

    def gate(self, number: int) -> Path:
        """Return the file for which installing at an endpoint waits."""
        return self.folder / f"gate{number}"

    def location(self, number: int) -> str:
        """Return the location of an endpoint."""
        return self.served.locations()[number]

    def job(self, name: str, first: int) -> None:
        """Start a job of endpoints from *first* on."""
        folder = self.folder / name
        folder.mkdir()
        some = chosen(self.served.locations()[first : first + JOB], folder)
        self.run("job", "start", name, "--locations-file", str(some))

    def run(self, *arguments: str) -> None:
        """Run ``certrail``, which must go well."""
        done = self.stack.cli(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr

    def status(self, number: int) -> tuple[str, str | None]:
        """Return the status of an endpoint's request, and the title of the step that runs."""
        found = self._rows(
            "select r.status, (select s.title from steps s where s.request_id = r.id"
            "  and s.status = 'running') from requests r join endpoints e on e.id = r.endpoint_id"
            " where e.location = %s",
            self.location(number),
        )
        assert len(found) == 1
        return found[0][0], found[0][1]

    def until(self, number: int, status: str, step: str | None = None) -> None:
        """Wait for what :meth:`status` says of an endpoint."""
        what = f"{self.location(number)} is {status} {step or ''}"
        wait_for(lambda: self.status(number) == (status, step), what, within=60)

    def run_of(self, number: int) -> dict[str, Any]:
        """Return the flow run of an endpoint's request."""
        ((found,),) = self._rows(
            "select r.flow_run_id from requests r join endpoints e on e.id = r.endpoint_id"
            " where e.location = %s",
            self.location(number),
        )
        return self.api.read(str(found))

    def deployment(self, flow: str) -> str:
        """Return the id of the deployment of what runs every minute."""
        return str(self.api.get(f"/deployments/name/{flow}/every-minute")["id"])

    def upkeep(self, flow: str, **which: Any) -> int:
        """Count runs of what runs every minute."""
        ids = [self.deployment(flow)]
        return int(
            self.api.post("/flow_runs/count", deployments={"id": {"any_": ids}}, flow_runs=which)
        )

    def ended(self, run: str) -> int:
        """Count how often a repair ended a run of that name that nobody works on any more."""
        ((found,),) = self._rows(
            "select count(*) from audit where action = 'repair.end-run' and detail ->> 'name' = %s",
            run,
        )
        return int(found)

    def is_over(self, job: str) -> bool:
        """Whether a job has ended."""
        return self._rows("select ended_at is not null from jobs where name = %s", job) == [(True,)]

    def requests(self, locations: Sequence[str]) -> dict[str, tuple[UUID, str]]:
        """Return request and fingerprint of each endpoint's certificate."""
        rows = self._rows(
            "select e.location, r.id, c.fingerprint from requests r"
            " join endpoints e on e.id = r.endpoint_id"
            " join certificates c on c.id = r.certificate_id where e.location = any(%s)",
            list(locations),
        )
        return {location: (id_, fingerprint) for location, id_, fingerprint in rows}

    def _rows(self, query: str, argument: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.stack.database_url) as connection:
            return connection.execute(query, [argument]).fetchall()


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """The server starts three hours ahead, so that all its plans are of that time."""
    folder = tmp_path_factory.mktemp("clock")
    clock = MachineClock.made(folder / "clock")
    clock.step(hours=3)
    found = {
        "CERTRAIL_LEASE_SECONDS": "5",
        "CERTRAIL_SETTLE_SECONDS": "5",
        **clock.environment(of="certrail.cli._serve"),
    }
    with (
        estate(folder / "estate", "sc", 2 * JOB + 4) as served,
        stack(extra=found) as running,
        closing(PrefectApi(running.api_url)) as api,
        pytest.MonkeyPatch.context() as patch,
    ):
        run_file = read_run_file(running.data_dir)
        assert run_file is not None
        for name, value in run_file.environment().items():
            patch.setenv(name, value)
        made = Yard(running, api, served, clock, folder)
        whole = served.configuration()
        for number in (0, JOB):
            served.hold(whole, whole["endpoints"][number], made.gate(number))
        made.run("apply", "-f", str(served.write(whole)))
        yield made


def test_a_clock_that_was_ahead_is_put_right(yard: Yard) -> None:
    """Requests and a job run meanwhile; nothing begins too early, and upkeep does not stop.

    What the server planned is hours away then, which would be enough for its scheduler.
    """
    began = time.time()
    soon, later = 2 * JOB, 2 * JOB + 1
    yard.run("request", "start", yard.location(later), "--at", "+2h")
    yard.run("request", "start", yard.location(soon), "--at", "+5s")
    yard.until(soon, "automation-successful")
    yard.job("ahead", first=0)
    yard.until(0, "in-progress", "Certificate installed")

    yard.clock.step(hours=0)
    righted = datetime.now(UTC)
    yard.gate(0).touch()
    wait_for(lambda: yard.is_over("ahead"), "the job ends", within=60)

    upkeep_goes_on(yard, since=righted)
    assert yard.status(later) == ("automation-scheduled", None)
    must_be_whole(yard, [yard.location(number) for number in (0, 1, 2, soon)], began)


def test_a_clock_that_was_behind_is_put_right(yard: Yard) -> None:
    """It goes back under a job. What begins then is of the future for it: until it is right."""
    began = time.time()
    single, soon = 2 * JOB + 2, 2 * JOB + 3
    yard.clock.step(hours=0)
    yard.job("behind", first=JOB)
    yard.until(JOB, "in-progress", "Certificate installed")
    yard.clock.step(hours=-3)
    yard.run("request", "start", yard.location(single))
    yard.run("request", "start", yard.location(soon), "--at", "+5s")
    # What is due by both clocks runs, or is cancelled beside one that waits for the right time.
    for name in EVERY_MINUTE:
        yard.api.wait(yard.api.run(yard.deployment(name)))
    yard.gate(JOB).touch()
    for number in range(JOB, 2 * JOB):
        yard.until(number, "automation-successful")
    for number in (single, soon):
        yard.api.wait(yard.run_of(number)["id"], "PENDING")

    yard.clock.step(hours=0)
    for number in (single, soon):
        yard.until(number, "automation-successful")
    wait_for(lambda: yard.is_over("behind"), "the job ends", within=60)

    for name in EVERY_MINUTE:
        upkeep_runs(yard, name)
    assert yard.ended("reconcile") == 0, "it took itself for dead"
    numbers = (*range(JOB, 2 * JOB), single, soon)
    must_be_whole(yard, [yard.location(number) for number in numbers], began)


def upkeep_runs(yard: Yard, name: str) -> None:
    """Let what runs every minute run now, to its end; one beside another is cancelled."""
    deployment = yard.deployment(name)
    wait_for(
        lambda: yard.api.wait(yard.api.run(deployment))["state_type"] == "COMPLETED",
        f"{name} ran",
        within=150,
    )


def upkeep_goes_on(yard: Yard, *, since: datetime) -> None:
    """Wait until each of what runs every minute did so to its end, by itself and by a right clock.

    Not the next run of each: one that comes while another is under way is cancelled.
    """
    for name in EVERY_MINUTE:

        def is_through(name: str = name) -> bool:
            within = {
                "after_": since.isoformat(),
                "before_": (datetime.now(UTC) + timedelta(minutes=1)).isoformat(),
            }
            return yard.upkeep(name, state={"type": {"any_": ["COMPLETED"]}}, start_time=within) > 0

        wait_for(is_through, f"{name} ran", within=150)


def must_be_whole(yard: Yard, locations: Sequence[str], began: float) -> None:
    """All that must hold of these requests, once they are through."""
    found = yard.requests(locations)
    assert set(found) == set(locations)
    ids = [id_ for id_, _ in found.values()]
    must_agree(yard.stack, locations=locations, within=180)
    must_be_whole_at_last(yard.stack, ids, since=began, logs=yard.folder.glob("*.log"))
    issued = yard.served.issued()
    for location, (_, fingerprint) in found.items():
        name = location.partition(":")[0]
        assert issued[name] == 1
        assert fingerprint_at(yard.served.port, name) == fingerprint
