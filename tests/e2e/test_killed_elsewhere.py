"""Appliances and deliveries, killed at any journal row: the next run goes on where it was.

As :mod:`tests.e2e.test_killed_anywhere` for web servers; the CA is a folder, so
that what it issued can be counted.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from certrail.settings import read_run_file
from certrail.x509.export import Format, Part, load
from tests.chaos.records import must_be_left_whole, must_be_whole
from tests.support import kill_points
from tests.support.bulk import Estate, estate
from tests.support.flow_runner import FlowRunner
from tests.support.handshake import fingerprint_at
from tests.support.kill_points import KillPoint
from tests.support.process import wait_for
from tests.support.stack import Stack

BEGAN = time.time()
ACTIONS = {
    "appliance": (
        "csr.generate",
        "order.open",
        "order.finalize",
        "install.stage",
        "install.activate",
    ),
    "delivery": ("order.open", "order.finalize", "deliver"),
}
CASES = [
    (workflow, KillPoint(action, phase))
    for workflow, actions in ACTIONS.items()
    for action in actions
    for phase in ("intent", "outcome")
]


@dataclass(frozen=True)
class Places:
    """Endpoints of both workflows, one for each case and one for a clean run of each.

    Attributes:
        appliances, deliveries: at different CAs.
        folder: where deliveries go.
    """

    appliances: Estate
    deliveries: Estate
    folder: Path

    def location(self, workflow: str, number: int) -> str:
        """Return an endpoint's location."""
        return f"kill-{workflow}/{number}"

    def name(self, workflow: str, number: int) -> str:
        """Return the name in its certificate."""
        return self.estate(workflow).names[number]

    def estate(self, workflow: str) -> Estate:
        """Return where endpoints of the workflow are."""
        return self.appliances if workflow == "appliance" else self.deliveries

    def fingerprint(self, workflow: str, number: int) -> str:
        """Return what is found from outside."""
        name = self.name(workflow, number)
        if workflow == "appliance":
            return fingerprint_at(self.appliances.port, name)
        content = (self.folder / f"{name}.p12").read_bytes()
        return load({Part.STORE: content}, Format.PKCS12, password="changeit").chain.fingerprint


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, installation: Stack) -> Iterator[Places]:
    root = tmp_path_factory.mktemp("killed")
    count = len(CASES) + 1
    with (
        estate(root / "a", "ka", count) as appliances,
        estate(root / "d", "kd", count) as deliveries,
    ):
        found = Places(appliances, deliveries, root / "delivered")
        (root / "password").touch(mode=0o600)
        (root / "password").write_text("changeit")
        for workflow in ACTIONS:
            here = found.estate(workflow)
            fields = {"key": {"location": "host"}} if workflow == "appliance" else {}
            whole = here.configuration(workflow=workflow, **fields)
            for number, endpoint in enumerate(whole["endpoints"]):
                endpoint["location"] = found.location(workflow, number)
                if workflow == "delivery":
                    del endpoint["address"]
                    endpoint["server"] = {
                        "kind": "directory",
                        "path": str(found.folder),
                        "format": "pkcs12",
                        "password": f"file:{root / 'password'}",
                    }
            applied = installation.cli("apply", "-f", str(here.write(whole)))
            assert applied.returncode == 0, applied.stderr
        kill_points.install(installation.database_url)
        yield found
        running = read_run_file(installation.data_dir)
        assert running is not None
        with pytest.MonkeyPatch.context() as patch:
            for name, value in running.environment().items():
                patch.setenv(name, value)
            locations = [found.location(flow, n) for flow in ACTIONS for n in range(count)]
            must_be_left_whole(installation, locations)


@pytest.fixture(scope="module")
def runner(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlowRunner]:
    running = read_run_file(installation.data_dir)
    assert running is not None
    environment = {**running.environment(), "CERTRAIL_LEASE_SECONDS": "1"}
    with FlowRunner(environment, tmp_path_factory.mktemp("runner") / "log") as started:
        yield started


@pytest.fixture(autouse=True)
def _database(installation: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    running = read_run_file(installation.data_dir)
    assert running is not None
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)


def make_request(location: str) -> str:
    """Store a request that no worker knows of; this test runs it itself."""
    from certrail.model import Action
    from certrail.store import new_requests, plans
    from certrail.store.requests import Reason

    prepared = plans.for_location(location)
    request = new_requests.create(
        prepared.endpoint_id,
        action=Action.ENROLL,
        plan=prepared.plan,
        reason=Reason("requested", "by a test"),
        actor="test",
    )
    return str(request.id)


@pytest.mark.parametrize("workflow", ACTIONS)
def test_the_journal_of_a_clean_run_has_just_these_rows(
    installation: Stack, places: Places, runner: FlowRunner, workflow: str
) -> None:
    """A new effect must get its kill points, or nobody knows what a crash there does."""
    number = len(CASES)
    request_id = make_request(places.location(workflow, number))

    runner.run(request_id)

    with psycopg.connect(installation.database_url) as connection:
        rows = connection.execute(
            "select distinct action from journal where request_id = %s", [request_id]
        ).fetchall()
    assert {action for (action,) in rows} == set(ACTIONS[workflow])
    assert_whole(installation, places, workflow, number, request_id)


@pytest.mark.parametrize(
    ("number", "workflow", "point"),
    [(number, *case) for number, case in enumerate(CASES)],
    ids=[f"{workflow} {point}" for workflow, point in CASES],
)
def test_a_run_killed_here_is_finished_by_the_next(
    installation: Stack,
    places: Places,
    runner: FlowRunner,
    number: int,
    workflow: str,
    point: KillPoint,
) -> None:
    """One order and one certificate, wherever it was."""
    request_id = make_request(places.location(workflow, number))

    with kill_points.armed(installation.database_url, point):
        victim = runner.start(request_id)
        kill_points.wait_until_caught(installation.database_url, point)
        runner.kill(victim)
    runner.run(request_id)

    assert_whole(installation, places, workflow, number, request_id)


def assert_whole(
    installation: Stack, places: Places, workflow: str, number: int, request_id: str
) -> None:
    """Check all that must hold once the request is through."""

    def row() -> tuple[str, str | None, str | None]:
        with psycopg.connect(installation.database_url) as connection:
            found = connection.execute(
                "select r.status, r.lease_owner, c.fingerprint from requests r"
                " left join certificates c on c.id = r.certificate_id where r.id = %s",
                [request_id],
            ).fetchone()
        assert found is not None
        return found[0], found[1], found[2]

    # Reconciliation may have taken it up first: then the run that we began left it to that one.
    active = ("automation-requested", "in-progress")
    wait_for(lambda: row()[0] not in active, "the request ends", within=60)
    status, owner, fingerprint = row()
    done = {"appliance": "automation-successful", "delivery": "certificate-delivered"}
    shown = installation.cli("request", "show", request_id).stdout
    assert (status, owner) == (done[workflow], None), shown
    must_be_whole(installation, [UUID(request_id)], since=BEGAN)
    with psycopg.connect(installation.database_url) as connection:
        steps = connection.execute(
            "select distinct status from steps where request_id = %s", [request_id]
        ).fetchall()
        orders = connection.execute(
            "select count(*) from orders where request_id = %s", [request_id]
        ).fetchone()
    assert steps == [("completed",)]
    assert orders == (1,)
    name = places.name(workflow, number)
    assert places.estate(workflow).issued()[name] == 1
    assert places.fingerprint(workflow, number) == fingerprint
    left = [path for path in places.folder.rglob("*") if path.name.startswith(".certrail-")]
    assert left == []
