"""`certrail up`, left alone, with certificates that live for minutes; and operators who intervene.

The sweep and the reconciling flow run every few seconds instead of every
minute, set as an operator would set it; nothing else is hurried.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.hurry import EVERY_SECONDS, hurried
from tests.support.prefect_api import PrefectApi
from tests.support.process import running, wait_for
from tests.support.stack import Stack, stack
from tests.support.visitor import Visitor
from tests.support.world import World, world

VALID_SECONDS = 300
RENEWALS = 3
SITES = ("always", "moved", "cancelled", "waits", "second", "branch")
NAMES = [f"{name}.example.test" for name in SITES]
EARLY = {"at_lifetime_fraction": 0.2, "spread": 0.05}
LATE = {"at_lifetime_fraction": 0.4, "spread": 0}


@dataclass
class Scene:
    """An installation with hurried schedules, and the servers that it automates."""

    stack: Stack
    world: World
    api: PrefectApi
    issued_before: int = 0

    def cli(self, *arguments: str, code: int = 0, actor: str = "ann@test") -> str:
        done = self.stack.cli(*arguments, within=200, env={"CERTRAIL_ACTOR": actor})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code in (0, 1) and done.stdout else done.stderr

    def json(self, *arguments: str, **options: Any) -> Any:
        return json.loads(self.cli(*arguments, "--json", **options))

    def request(self, name: str) -> dict[str, Any]:
        """Return the newest request of a site, be it only planned."""
        return self.requests(name)[0]

    def requests(self, name: str) -> list[dict[str, Any]]:
        location = f"{name}.example.test:443"
        found: list[dict[str, Any]] = self.json("request", "list", "--location", location)
        return found

    def await_request(self, name: str, within: float = 120, **wanted: str) -> dict[str, Any]:
        """Wait until the newest request of a site has the given fields; return it."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.clear()
            seen.update(self.request(name))
            return all(seen[key] == value for key, value in wanted.items())

        try:
            wait_for(there, f"{name} {wanted}", within=within)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it is {json.dumps(seen)[:1500]}") from None
        return seen


def configuration(outside: World, opens: datetime) -> dict[str, Any]:
    """Return all of it, with a maintenance window that *opens* then."""
    shut = opens + timedelta(hours=1)
    window = {"start": f"{opens:%H:%M:%S}", "end": f"{shut:%H:%M:%S}"}
    profiles = [
        outside.profile(name="early", renew=EARLY),
        outside.profile(name="late", renew=LATE),
        outside.profile(name="window", renew=EARLY, maintenance_window=window),
        outside.profile(name="second", renew=EARLY, approval={"by": "second-person"}),
    ]
    use = dict(zip(SITES, ("early", "late", "late", "window", "second", "early"), strict=True))
    endpoints = [outside.endpoint(f"{site}.example.test", profile=use[site]) for site in SITES]
    endpoints[-1]["executor"] = "branch-1"
    return outside.configuration(profiles=profiles, endpoints=endpoints)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    extra = {"CERTRAIL_LEASE_SECONDS": "10", "CERTRAIL_EXECUTOR_SILENT_SECONDS": "20"}
    with ExitStack() as parts:
        folder = tmp_path_factory.mktemp("renewal")
        outside = parts.enter_context(world(folder, NAMES, validity_seconds=VALID_SECONDS))
        installation = parts.enter_context(stack(extra=extra))
        api = parts.enter_context(closing(PrefectApi(installation.api_url)))
        parts.enter_context(hurried(api, "reconcile", "renewal-sweep", "send-notifications"))
        there = Scene(installation, outside, api)
        path = outside.write("renewal.yaml", configuration(outside, datetime.now(UTC)))
        there.cli("apply", "-f", str(path))
        yield there


@pytest.fixture(scope="module", autouse=True)
def visitor(scene: Scene) -> Iterator[Visitor]:
    """A client of the site that is left alone, from the first certificate to the end of it all."""
    scene.cli("request", "start", "always.example.test:443", "--wait")
    scene.issued_before = scene.world.ca.certificate_count()
    with Visitor(scene.world.nginx.port, "always.example.test", scene.world.roots) as visitor:
        yield visitor


@pytest.mark.timeout(600)
@pytest.mark.runs_last
def test_left_alone_it_renews_again_and_again_without_a_bad_handshake(
    scene: Scene, visitor: Visitor
) -> None:
    """What all of this is for: nobody does anything, and no client ever notices."""
    wait_for(lambda: len(visitor.seen) > RENEWALS, f"{RENEWALS} renewals are served", within=500)

    assert visitor.refused == []
    assert visitor.looks > 100

    def renewals() -> list[dict[str, Any]]:
        return [r for r in scene.requests("always") if r["action"] == "renew"]

    def done() -> list[dict[str, Any]]:
        return [r for r in renewals() if r["status"] == "automation-successful"]

    # A client sees the new certificate a moment before the request has tested it.
    wait_for(lambda: len(done()) >= RENEWALS, f"{RENEWALS} renewals are over", within=60)
    assert {r["reason"]["code"] for r in renewals()} == {"renewal-due"}
    assert scene.world.ca.certificate_count() > scene.issued_before
    # Each certificate was ordered by one request, and by no other.
    serials = [r["certificate"]["serial"] for r in done()]
    assert len(serials) == len(set(serials))


@pytest.mark.timeout(600)
def test_what_an_operator_does_to_a_scheduled_renewal_in_prefect_holds(scene: Scene) -> None:
    """Moved or cancelled there, by the calls that Prefect's pages make.

    They have no field for a run's time: *Copy to new run* with a time, then *Cancel*.
    """
    for name in ("moved", "cancelled"):
        scene.cli("request", "start", f"{name}.example.test:443", "--wait")
    moved = scene.await_request("moved", action="renew", status="automation-scheduled")
    cancelled = scene.await_request("cancelled", action="renew", status="automation-scheduled")
    due = max(datetime.fromisoformat(r["scheduled_at"]) for r in (moved, cancelled))
    wait_for(lambda: bool(scene.request("moved")["flow_run_id"]), "a run for it", within=60)
    wait_for(lambda: bool(scene.request("cancelled")["flow_run_id"]), "a run for it", within=60)
    moved, cancelled = scene.request("moved"), scene.request("cancelled")
    run = scene.api.read(moved["flow_run_id"])
    assert run["state_type"] == "SCHEDULED"
    # Under *Details* on the run's page: why it is renewed, and why then.
    assert run["state"]["message"] == moved["reason"]["message"] != ""
    to = datetime.now(UTC) + timedelta(hours=2)

    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": to.isoformat()}}
    scene.api.post(f"/flow_runs/{moved['flow_run_id']}/set_state", state=state)
    scene.api.set_state(cancelled["flow_run_id"], "CANCELLED")

    scene.await_request("cancelled", status="cancelled")

    def adopted() -> bool:
        found = datetime.fromisoformat(scene.request("moved")["scheduled_at"])
        return abs(found - to) < timedelta(seconds=2)

    wait_for(adopted, "our record follows", within=90)
    to += timedelta(hours=1)
    run = scene.api.read(moved["flow_run_id"])
    copy = scene.api.post(
        f"/deployments/{run['deployment_id']}/create_flow_run",
        parameters=run["parameters"],
        state={"type": "SCHEDULED", "state_details": {"scheduled_time": to.isoformat()}},
    )["id"]
    scene.api.set_state(moved["flow_run_id"], "CANCELLING")
    wait_for(adopted, "our record follows the copy", within=90)
    wait_for(lambda: not _exists(scene, copy), "there is one run for one request", within=90)
    wait_for(
        lambda: datetime.now(UTC) > due + timedelta(seconds=3 * EVERY_SECONDS),
        "the first moment is over",
        within=VALID_SECONDS,
    )
    assert adopted()
    assert scene.request("moved")["request_id"] == moved["request_id"]
    run = scene.api.read(scene.request("moved")["flow_run_id"])
    assert (run["state_type"], run["name"]) == ("SCHEDULED", "renew moved.example.test:443")
    assert abs(datetime.fromisoformat(run["expected_start_time"]) - to) < timedelta(seconds=2)
    assert scene.request("cancelled")["request_id"] == cancelled["request_id"]
    assert scene.request("cancelled")["status"] == "cancelled"
    told = scene.cli("audit", "list", "--json")
    assert "request.moved" in told
    # Switched on again, it comes back.
    scene.cli("endpoint", "auto-renew", "cancelled.example.test:443", "on")

    def renewed() -> bool:
        # The one after it may be scheduled by then.
        made = scene.requests("cancelled")
        return ("renew", "automation-successful") in {(r["action"], r["status"]) for r in made}

    wait_for(renewed, "renewed after all", within=150)


def _exists(scene: Scene, run: str) -> bool:
    return bool(scene.api.post("/flow_runs/filter", flow_runs={"id": {"any_": [run]}}))


@pytest.mark.timeout(600)
def test_obtained_when_due_installed_when_the_window_opens(scene: Scene) -> None:
    """The request waits with its certificate, says for what, and orders nothing again."""
    scene.cli("request", "start", "waits.example.test:443", "--wait")
    opens = (datetime.now(UTC) + timedelta(seconds=100)).replace(microsecond=0)
    path = scene.world.write("window.yaml", configuration(scene.world, opens))
    scene.cli("apply", "-f", str(path))
    (enrolled,) = [r for r in scene.requests("waits") if r["action"] == "enroll"]
    first = enrolled["certificate"]["serial"]

    def renewal() -> dict[str, Any]:
        """Return the first renewal; by the end the next one may be there already."""
        made = [r for r in scene.requests("waits") if r["action"] == "renew"]
        return made[-1] if made else {}

    def waits() -> bool:
        found = renewal()
        return bool(found and found["certificate"] and found["status"] == "automation-scheduled")

    wait_for(waits, "obtained, waiting for the window", within=150)
    waiting = renewal()
    assert waiting["certificate"]["serial"] != first
    assert [s["status"] for s in waiting["steps"]][2:] == ["completed", "pending", "pending"]
    assert "waits for the maintenance window" in waiting["steps"][3]["detail"]
    assert datetime.fromisoformat(waiting["scheduled_at"]) == opens

    wait_for(lambda: renewal()["status"] == "automation-successful", "it is installed", within=200)

    done = renewal()
    assert done["certificate"] == waiting["certificate"]
    assert done["request_id"] == waiting["request_id"]
    assert datetime.fromisoformat(done["steps"][3]["ended_at"]) >= opens


@pytest.mark.timeout(600)
def test_a_second_person_approves_before_anything_is_issued(scene: Scene) -> None:
    """Paused in Prefect, in nobody's worker; neither who asked nor an unknown person approves."""
    before = scene.world.ca.order_count()
    made = scene.json("request", "start", "second.example.test:443", actor="ann@test")
    assert made["status"] == "approval-pending"
    run = scene.api.read(made["flow_run_id"])
    assert (run["state_type"], run["state"]["name"]) == ("PAUSED", "ApprovalPending")
    assert "certrail request approve" in run["state"]["message"]

    refused = scene.cli("request", "approve", made["request_id"], code=1, actor="ann@test")
    assert "somebody else has to approve it" in refused
    # The button in Prefect's pages does not say who pressed it.
    scene.api.post(f"/flow_runs/{made['flow_run_id']}/resume")
    wait_for(
        lambda: scene.api.read(made["flow_run_id"])["state"]["name"] == "ApprovalPending",
        "paused again",
        within=60,
    )
    assert scene.request("second")["status"] == "approval-pending"

    scene.cli("request", "approve", made["request_id"], "--note", "CHG-7", actor="bob@test")

    # Its renewal may be the newest request by then.
    def mine() -> dict[str, Any]:
        return next(r for r in scene.requests("second") if r["request_id"] == made["request_id"])

    wait_for(lambda: mine()["status"] == "automation-successful", "approved, done", within=150)
    assert mine()["flow_run_id"] == made["flow_run_id"]
    assert scene.world.ca.order_count() > before
    # The renewal asks again; refused, it stays away.
    scene.await_request("second", action="renew", status="approval-pending")
    wait_for(lambda: bool(scene.request("second")["flow_run_id"]), "a run for it", within=60)
    asked = scene.request("second")
    scene.cli("request", "deny", asked["request_id"], actor="bob@test")
    scene.await_request("second", status="cancelled")
    assert scene.api.wait(asked["flow_run_id"], "CANCELLED")


@pytest.mark.timeout(600)
def test_work_waits_for_the_agent_that_reaches_its_target(scene: Scene, tmp_path: Path) -> None:
    """Nobody else takes it; it is shown what waits for whom; it goes on when the agent comes."""
    made = scene.json("request", "start", "branch.example.test:443")
    told = scene.cli("doctor", code=1)
    assert "branch-1" in told
    assert "1 request waits for branch-1, of which nobody has heard" in told
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]

    def executor() -> dict[str, Any]:
        done = scene.stack.cli("executor", "list", "--json")
        return next((e for e in json.loads(done.stdout) if e["name"] == "branch-1"), {})

    def status() -> str:
        return str(executor().get("status"))

    assert scene.request("branch")["status"] == "automation-requested"
    with running(
        [*command, "--name", "branch-1", "--queue", "branch-1"],
        log=tmp_path / "agent.log",
        env=scene.stack.env,
        ready=lambda: status() == "online",
        within=90,
    ) as agent:

        def mine() -> dict[str, Any]:
            listed = scene.requests("branch")
            return next(r for r in listed if r["request_id"] == made["request_id"])

        wait_for(lambda: mine()["status"] == "automation-successful", "it goes on", within=150)
        assert executor()["queues"] == ["branch-1"]
        agent.kill()
        wait_for(lambda: status() == "silent", "the agent is found silent", within=120)
        # A failure once its next renewal waits for it, a warning until then.
        listed = scene.stack.cli("doctor", within=200).stdout
        assert "branch-1 (agents) is silent since" in listed
