"""Appliances and deliveries, killed at any journal row: the next run goes on where it was.

As :mod:`tests.e2e.test_killed_anywhere` for web servers; the CA is a folder, so
that what it issued can be counted. Appliances are hosts, and devices behind an API.
Somebody connects, or reads what is delivered, throughout.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives import serialization

from certrail.model import Bundle
from certrail.settings import read_run_file
from certrail.x509.export import Format, Part, export, load
from tests.chaos.records import must_be_left_whole, must_be_whole, until_over
from tests.support import bigip_api, kill_points
from tests.support.bigip_api import BigIp
from tests.support.bulk import Estate, estate
from tests.support.flow_runner import FlowRunner
from tests.support.handshake import fingerprint_at
from tests.support.kill_points import KillPoint
from tests.support.nginx import TestCa
from tests.support.process import wait_for
from tests.support.stack import Stack
from tests.support.visitor import Reader, Visitor, Watch

BEGAN = time.time()
# The rows of a clean run; of a device those of its installation are its own.
ACTIONS = {
    "appliance": (
        "csr.generate",
        "order.open",
        "order.finalize",
        "install.stage",
        "install.activate",
    ),
    "device": ("order.open", "order.finalize", "install.stage", "install.activate"),
    "delivery": ("order.open", "order.finalize", "deliver"),
}
_KILLED = {**ACTIONS, "device": ("install.stage", "install.activate")}
POINTS = {
    workflow: [KillPoint(action, phase) for action in actions for phase in ("intent", "outcome")]
    for workflow, actions in _KILLED.items()
}
CASES = [
    (workflow, number, point)
    for workflow, points in POINTS.items()
    for number, point in enumerate(points)
]
# And of an installation on a device that clients refuse, so that the one before is put back.
UNDONE = [KillPoint("install.restore", phase) for phase in ("intent", "outcome")]
DONE = {
    "appliance": "automation-successful",
    "device": "automation-successful",
    "delivery": "certificate-delivered",
}
PASSWORD = "changeit"
PAUSE = 0.02


@dataclass(frozen=True)
class Places:
    """Endpoints of all kinds: one for each case, then one for a clean run.

    Attributes:
        appliances, deliveries: at different CAs; devices are at that of the appliances.
        devices: one for each of their endpoints; after those the ones that clients refuse.
        folder: where deliveries go.
        roots: a folder of what clients trust: ours, and what issued the one before.
        old: what was there before, by name.
    """

    appliances: Estate
    deliveries: Estate
    devices: list[BigIp]
    folder: Path
    roots: Path
    old: dict[str, str]

    def location(self, workflow: str, number: int) -> str:
        """Return an endpoint's location."""
        return f"kill-{workflow}/{number}"

    def name(self, workflow: str, number: int) -> str:
        """Return the name in its certificate."""
        if workflow == "device":
            return device_name(number)
        return self.estate(workflow).names[number]

    def estate(self, workflow: str) -> Estate:
        """Return where the CA of the workflow is."""
        return self.deliveries if workflow == "delivery" else self.appliances

    def fingerprint(self, workflow: str, number: int) -> str:
        """Return what is found from outside."""
        name = self.name(workflow, number)
        if workflow == "appliance":
            return fingerprint_at(self.appliances.port, name)
        if workflow == "device":
            return self.devices[number].served()
        content = (self.folder / f"{name}.p12").read_bytes()
        return load({Part.STORE: content}, Format.PKCS12, password=PASSWORD).chain.fingerprint

    def watch(self, workflow: str, number: int) -> Watch:
        """Return somebody who looks at it all the time."""
        name = self.name(workflow, number)
        if workflow == "delivery":
            return Reader(self.folder / f"{name}.p12", PASSWORD, pause=PAUSE)
        device = workflow == "device"
        port = self.devices[number].port if device else self.appliances.port
        roots = self.roots / (f"{name}.pem" if device else "appliances.pem")
        return Visitor(port, name, roots, pause=PAUSE)


def device_name(number: int) -> str:
    """Return the name of a device's virtual server."""
    return f"device{number}.bulk.test"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, installation: Stack) -> Iterator[Places]:
    root = tmp_path_factory.mktemp("killed")
    counts = {workflow: len(points) + 1 for workflow, points in POINTS.items()}
    with ExitStack() as on:
        found = Places(
            appliances=on.enter_context(estate(root / "a", "ka", counts["appliance"])),
            deliveries=on.enter_context(estate(root / "d", "kd", counts["delivery"])),
            devices=[
                on.enter_context(BigIp(device_name(number)).running())
                for number in range(counts["device"] + len(UNDONE))
            ],
            folder=root / "delivered",
            roots=root / "roots",
            old={},
        )
        stranger = put_what_was_before(found)
        (root / "stranger.pem").write_text(stranger)
        # Files of their own: all of these CAs have the same name.
        found.roots.mkdir()
        ours = (root / "a" / "ca" / "authority" / "root.pem").read_text()
        (found.roots / "appliances.pem").write_text(ours + stranger)
        for number, device in enumerate(found.devices):
            (found.roots / f"{device_name(number)}.pem").write_text(ours + device.roots)
        (root / "password").touch(mode=0o600)
        (root / "password").write_text(PASSWORD)
        for file in (
            found.appliances.write(configuration_of_appliances(found, root / "stranger.pem")),
            found.deliveries.write(configuration_of_deliveries(found, root / "password")),
        ):
            applied = installation.cli("apply", "-f", str(file))
            assert applied.returncode == 0, applied.stderr
        kill_points.install(installation.database_url)
        yield found
        running = read_run_file(installation.data_dir)
        assert running is not None
        with pytest.MonkeyPatch.context() as patch:
            for name, value in running.environment().items():
                patch.setenv(name, value)
            locations = [found.location(flow, n) for flow in ACTIONS for n in range(counts[flow])]
            must_be_left_whole(installation, locations)


def put_what_was_before(places: Places) -> str:
    """Give every place a certificate of another CA, whose root is returned."""
    ca = TestCa()
    for name in places.appliances.names:
        bundle = ca.bundle(name)
        places.old[name] = bundle.chain.fingerprint
        site = places.appliances.folder / "live" / name
        version = Path("versions") / bundle.chain.fingerprint[:16]
        (site / version).mkdir(parents=True)
        (site / version / "fullchain.pem").write_text(bundle.chain.text)
        (site / version / "privkey.pem").write_bytes(key_of(bundle))
        (site / "live").symlink_to(version)
    places.folder.mkdir()
    for name in places.deliveries.names:
        bundle = ca.bundle(name)
        places.old[name] = bundle.chain.fingerprint
        content = export(bundle, Format.PKCS12, password=PASSWORD)[Part.STORE]
        (places.folder / f"{name}.p12").write_bytes(content)
    for number, device in enumerate(places.devices):
        places.old[device_name(number)] = device.old.chain.fingerprint
    return ca.root.public_bytes(serialization.Encoding.PEM).decode()


def key_of(bundle: Bundle) -> bytes:
    """Return the private key of a certificate that no CA of ours issued."""
    assert bundle.key is not None
    return bundle.key.reveal()


def configuration_of_appliances(places: Places, stranger: Path) -> dict[str, Any]:
    """Return the file for hosts and devices; *stranger* is a CA that issues none of ours."""
    here = places.appliances
    whole = here.configuration(workflow="appliance", key={"location": "host"})
    for number, endpoint in enumerate(whole["endpoints"]):
        endpoint["location"] = places.location("appliance", number)
    (on_hosts,) = whole["profiles"]
    on_devices = {k: v for k, v in on_hosts.items() if k != "key"} | {"name": "ka-device"}
    refused = on_devices | {"name": "ka-refused", "trust": str(stranger)}
    whole["profiles"] += [on_devices, refused]
    for number, device in enumerate(places.devices):
        whole["connectors"].append(
            {
                "name": f"ka-bigip{number}",
                "type": "target-bigip",
                "url": device.url,
                "username": bigip_api.USER,
                "password": bigip_api.PASSWORD,
                "ca_bundle": device.roots,
            }
        )
        whole["endpoints"].append(
            {
                "location": places.location("device", number),
                "address": f"127.0.0.1:{device.port}",
                "names": [device_name(number)],
                "profile": "ka-device" if number <= len(POINTS["device"]) else "ka-refused",
                "target": f"ka-bigip{number}",
                "server": {"site": bigip_api.PROFILE},
            }
        )
    return whole


def configuration_of_deliveries(places: Places, password: Path) -> dict[str, Any]:
    """Return the file for deliveries; *password* is that of the containers."""
    whole = places.deliveries.configuration(workflow="delivery")
    for number, endpoint in enumerate(whole["endpoints"]):
        endpoint["location"] = places.location("delivery", number)
        del endpoint["address"]
        endpoint["server"] = {
            "kind": "directory",
            "path": str(places.folder),
            "format": "pkcs12",
            "password": f"file:{password}",
        }
    return whole


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


def run_killed(installation: Stack, runner: FlowRunner, request_id: str, point: KillPoint) -> None:
    """Run the request, kill it at *point*, and run it again to its end."""
    with kill_points.armed(installation.database_url, point):
        victim = runner.start(request_id)
        kill_points.wait_until_caught(installation.database_url, point)
        runner.kill(victim)
    runner.run(request_id)


@pytest.mark.parametrize("workflow", ACTIONS)
def test_the_journal_of_a_clean_run_has_just_these_rows(
    installation: Stack, places: Places, runner: FlowRunner, workflow: str
) -> None:
    """A new effect must get its kill points, or nobody knows what a crash there does."""
    number = len(POINTS[workflow])
    request_id = make_request(places.location(workflow, number))

    with places.watch(workflow, number) as watch:
        runner.run(request_id)

        assert_whole(installation, places, workflow, number, request_id)
        must_have_seen(places, watch, workflow, number)

    with psycopg.connect(installation.database_url) as connection:
        rows = connection.execute(
            "select distinct action from journal where request_id = %s", [request_id]
        ).fetchall()
    assert {action for (action,) in rows} == set(ACTIONS[workflow])


@pytest.mark.parametrize(
    ("workflow", "number", "point"),
    CASES,
    ids=[f"{workflow} {point}" for workflow, _, point in CASES],
)
def test_a_run_killed_here_is_finished_by_the_next(
    installation: Stack,
    places: Places,
    runner: FlowRunner,
    workflow: str,
    number: int,
    point: KillPoint,
) -> None:
    """One order and one certificate, wherever it was, and always a valid pair for clients."""
    request_id = make_request(places.location(workflow, number))

    with places.watch(workflow, number) as watch:
        run_killed(installation, runner, request_id, point)

        assert_whole(installation, places, workflow, number, request_id)
        must_have_seen(places, watch, workflow, number)


@pytest.mark.parametrize(
    ("place", "point"), list(enumerate(UNDONE)), ids=[f"device {point}" for point in UNDONE]
)
def test_an_undo_killed_here_is_done_by_the_next(
    installation: Stack, places: Places, runner: FlowRunner, place: int, point: KillPoint
) -> None:
    """The device has the certificate before in the end; in between one of the two."""
    number = len(POINTS["device"]) + 1 + place
    name, device = device_name(number), places.devices[number]
    request_id = make_request(places.location("device", number))

    with places.watch("device", number) as watch:
        run_killed(installation, runner, request_id, point)
        until_over(installation, request_id)

    with psycopg.connect(installation.database_url) as connection:
        status = connection.execute("select status from requests where id = %s", [request_id])
        assert status.fetchone() == ("automation-failed",)
        undone = connection.execute(
            "select action from journal where request_id = %s and outcome is null", [request_id]
        ).fetchall()
    assert undone == []
    assert places.fingerprint("device", number) == places.old[name]
    assert watch.refused == []
    assert watch.seen[0] == places.old[name]
    assert len(watch.seen) == 2
    assert places.appliances.issued()[name] == 1
    assert {*device.state.certs, *device.state.keys} == {"/Common/old.crt", "/Common/old.key"}
    must_be_tidy(device)


def must_have_seen(places: Places, watch: Watch, workflow: str, number: int) -> None:
    """Check that somebody found one certificate, then the other, and nothing unfit."""
    new = places.fingerprint(workflow, number)
    wait_for(lambda: new in watch.seen, "the new certificate is seen")
    assert watch.refused == []
    assert watch.seen == [places.old[places.name(workflow, number)], new]


def must_be_tidy(device: BigIp) -> None:
    """Check that what it serves would survive a reboot, and that no uploaded key lies about."""
    shown = {name: json.loads(text) for name, text in device.snapshot().items()}
    assert shown["running"] == shown["saved"]
    assert shown["running"]["uploads"] == []


def assert_whole(
    installation: Stack, places: Places, workflow: str, number: int, request_id: str
) -> None:
    """Check all that must hold once the request is through."""
    # Reconciliation may have taken it up first: then the run that we began left it to that one.
    until_over(installation, request_id)
    with psycopg.connect(installation.database_url) as connection:
        row = connection.execute(
            "select r.status, c.fingerprint from requests r"
            " left join certificates c on c.id = r.certificate_id where r.id = %s",
            [request_id],
        ).fetchone()
        steps = connection.execute(
            "select distinct status from steps where request_id = %s", [request_id]
        ).fetchall()
        orders = connection.execute(
            "select count(*) from orders where request_id = %s", [request_id]
        ).fetchone()
    assert row is not None
    assert row[0] == DONE[workflow], installation.cli("request", "show", request_id).stdout
    must_be_whole(installation, [UUID(request_id)], since=BEGAN)
    assert steps == [("completed",)]
    assert orders == (1,)
    assert places.estate(workflow).issued()[places.name(workflow, number)] == 1
    assert places.fingerprint(workflow, number) == row[1]
    if workflow == "device":
        must_be_tidy(places.devices[number])
    left = [path for path in places.folder.rglob("*") if path.name.startswith(".certrail-")]
    assert left == []
