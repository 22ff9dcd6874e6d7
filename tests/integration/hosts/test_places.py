"""One certificate on several real servers, with a real inventory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import insert

from certrail.cli._dry_run import changes
from certrail.cli._progress import show
from certrail.cli._starting import order_rollback
from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.plan import Plan
from certrail.configuration.profile import ProfileConfig
from certrail.connectors import InstallTarget
from certrail.errors import (
    ActivationRefused,
    CertrailError,
    InvalidRequest,
    ProbeFailed,
    Unreachable,
)
from certrail.jobs import budgets
from certrail.model import Bundle, Chain, Fingerprint, Site
from certrail.remote.local import LocalHost
from certrail.servers.registry import open_target, site_of
from certrail.steps import places
from certrail.steps.outcome import Work
from certrail.store import (
    certificates,
    configured,
    inventory,
    keys,
    new_requests,
    plans,
    request_ends,
    request_runs,
    request_view,
    requests,
)
from certrail.store import places as place_rows
from certrail.store.database import transaction
from certrail.store.requests import Reason, Request
from certrail.store.schema import connectors
from certrail.tracker import Status, Title
from tests.support.apache import Apache
from tests.support.nginx import Nginx, TestCa

WWW = "www.example.test"
LOCATION = f"{WWW}:443"


@dataclass
class Fleet:
    """Two nginx and an Apache with one name.

    Attributes:
        broken: connectors that fail when they are opened.
        opened: connectors that were, in that order.
    """

    webs: dict[str, Nginx | Apache]
    ca: TestCa
    bundle: Bundle
    broken: dict[str, CertrailError] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)

    @contextmanager
    def open(self, plan: Plan) -> Iterator[tuple[InstallTarget, Site]]:
        """Open the target of *plan*."""
        assert plan.target
        self.opened.append(plan.target.name)
        if plan.target.name in self.broken:
            raise self.broken[plan.target.name]
        yield open_target(LocalHost(plan.target.name), plan.server), site_of(plan.server)

    @property
    def served(self) -> list[Fingerprint]:
        """What clients of each see."""
        return [web.served(WWW) for web in self.webs.values()]

    def run(self, request_id: UUID) -> tuple[str, str]:
        """Run the last two steps in a fresh run; returns what they tell."""
        request_runs.take(request_id, "run", timedelta(seconds=60))
        told = []
        if not places.is_installed(requests.get(request_id)):
            work = Work.of(requests.get(request_id))
            told.append(places.install(work, self.open, Title.CERTIFICATE_INSTALLED).detail)
        told.append(places.test(Work.of(requests.get(request_id)), self.open).detail)
        return told[0], told[-1]

    def served_by(self, made: Request) -> None:
        """Run *made* to its good end."""
        self.run(made.id)
        request_ends.finish(made.id, "run", Status.AUTOMATION_SUCCESSFUL)

    def request(self) -> Request:
        """Make a request that has its certificate."""
        assert self.bundle.key
        prepared = plans.for_location(LOCATION)
        made = new_requests.create(
            prepared.endpoint_id,
            action=prepared.default_action,
            plan=prepared.plan,
            reason=Reason("requested", "by test"),
            actor="test",
        )
        with transaction() as connection:
            key = keys.keep(connection, self.bundle.key, purpose="leaf", algorithm="ecdsa-p256")
            found = certificates.save(connection, self.bundle.chain, key_id=key, ca="ca")
            requests.keep_certificate(connection, made.id, found)
        return requests.get(made.id)


@pytest.fixture
def fleet(database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """Three servers in the inventory as one endpoint."""
    ca = TestCa()
    with (
        Nginx.started(tmp_path / "one", ca=ca) as one,
        Nginx.started(tmp_path / "two", ca=ca) as two,
        Apache.started(tmp_path / "three", ca=ca) as three,
    ):
        webs: dict[str, Nginx | Apache] = {"web01": one, "web02": two, "web03": three}
        profile = {
            "name": "p",
            "workflow": "web-server",
            "ca": "ca",
            "trust_pem": Chain.of([ca.root]).text,
            "client": "openssl",
            "install_timeout_seconds": 20,
        }
        further = [
            {
                "target": name,
                "address": f"127.0.0.1:{web.port}",
                "server": {**web.server, "site": WWW},
            }
            for name, web in webs.items()
        ]
        endpoint = {"location": LOCATION, "names": [WWW], "profile": "p", **further[0]}
        with transaction() as connection:
            for name in ("ca", *webs):
                connection.execute(insert(connectors).values(name=name, slug="host-local"))
            configured.apply_profiles(connection, [ProfileConfig.model_validate(profile)], "test")
            wanted = EndpointConfig.model_validate({**endpoint, "also_on": further[1:]})
            configured.apply_endpoints(connection, [wanted], "test")
        yield Fleet(webs, ca, ca.bundle(WWW))


def test_installed_and_tested_everywhere(fleet: Fleet) -> None:
    """Three servers, one order; applying the same file again changes nothing."""
    made = fleet.request()

    installed, tested = fleet.run(made.id)

    assert installed.startswith("applied on 3 of 3: web01: nginx: ")
    assert tested.startswith("passed on 3 of 3: web01: ")
    assert [fleet.bundle.chain.fingerprint] * 3 == fleet.served
    shown = request_view.view(requests.get(made.id), ui_url="").to_json()["places"]
    assert [(one["target"], one["installed"]) for one in shown] == [
        ("web01", True),
        ("web02", True),
        ("web03", True),
    ]


def test_the_dry_run_shows_every_place(fleet: Fleet) -> None:
    """What would be written on each machine, and nothing is."""
    before = [web.config.read_bytes() for web in fleet.webs.values()]

    shown = changes(plans.for_location(LOCATION).plan, [WWW], fleet.open)

    assert [one["target"] for one in shown] == ["web01", "web02", "web03"]
    assert [one["server"] for one in shown] == ["nginx", "nginx", "apache"]
    for one, web in zip(shown, fleet.webs.values(), strict=True):
        assert f"+++ b{web.config}" in one["diff"]
        assert f"certrail/{WWW}/live/fullchain.pem" in one["diff"]
    assert before == [web.config.read_bytes() for web in fleet.webs.values()]
    assert not [web for web in fleet.webs.values() if (web.directory / "certrail").exists()]


def test_each_machine_is_found_and_counted(fleet: Fleet) -> None:
    """The filter of a target, what is served on one, and the budgets of a job know all three."""

    def found(text: str) -> list[str]:
        return [row.location for row in inventory.find(inventory.parse_filter(text))]

    for text in ("target=web01", "target=WEB03", "target~eb02", "target!=web04"):
        assert found(text) == [LOCATION]
    for text in ("target=web04", "target!=web02", "target!~web03", "target=web0"):
        assert found(text) == []
    assert budgets.names(plans.for_location(LOCATION).plan)[-3:] == (
        "device:web01",
        "device:web02",
        "device:web03",
    )
    ((location, server),) = inventory.servers_on("web03")
    assert (location, server["kind"]) == (LOCATION, "apache")


def test_what_is_shown_of_a_request_says_how_far_it_is(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything was installed, and with what failed."""
    made = fleet.request()
    show(request_view.view(made, ui_url=""))
    assert "applied on 0 of 3\n  · web01\n" in capsys.readouterr().out

    fleet.broken["web02"] = Unreachable("web02 does not answer")
    with pytest.raises(Unreachable):
        fleet.run(made.id)
    show(request_view.view(requests.get(made.id), ui_url=""))

    told = capsys.readouterr().out
    assert "applied on 2 of 3\n  ✓ web01: nginx: " in told
    assert "  · web02: web02 does not answer\n  ✓ web03: Apache: " in told


def test_one_that_fails_keeps_no_other_waiting(fleet: Fleet) -> None:
    """What is installed stays, is told, and is not done again by the retry."""
    made = fleet.request()
    old = fleet.webs["web01"].old.chain.fingerprint
    whole = fleet.webs["web02"].config.read_bytes()
    fleet.webs["web02"].config.write_bytes(b"nonsense on;\n" + whole)
    with pytest.raises(ActivationRefused, match=r"applied on 2 of 3; web02: nginx on web02"):
        fleet.run(made.id)
    new = fleet.bundle.chain.fingerprint
    assert [new, fleet.webs["web02"].old.chain.fingerprint, new] == fleet.served
    assert old != new
    assert [row.is_installed for row in place_rows.of_request(made.id)] == [True, False, True]
    assert not places.is_installed(requests.get(made.id))

    fleet.webs["web02"].config.write_bytes(whole)
    fleet.opened.clear()
    work = Work.of(requests.get(made.id))
    told = places.install(work, fleet.open, Title.CERTIFICATE_INSTALLED)

    assert fleet.opened == ["web02"]
    assert told.detail.startswith("applied on 3 of 3")
    assert [new] * 3 == fleet.served


def test_killed_between_two_machines(fleet: Fleet) -> None:
    """The next run installs only what is left."""

    class Killed(BaseException):
        pass

    made = fleet.request()
    request_runs.take(made.id, "dead", timedelta(0))

    @contextmanager
    def dying(plan: Plan) -> Iterator[tuple[InstallTarget, Site]]:
        with fleet.open(plan) as opened:
            if plan.target and plan.target.name == "web02":
                raise Killed
            yield opened

    work = Work.of(requests.get(made.id))
    with pytest.raises(Killed):
        places.install(work, dying, Title.CERTIFICATE_INSTALLED)
    assert place_rows.count_installed(made.id) == 1
    fleet.opened.clear()

    fleet.run(made.id)

    assert fleet.opened[:2] == ["web02", "web03"]
    assert [fleet.bundle.chain.fingerprint] * 3 == fleet.served


def test_only_the_one_that_does_not_pass_is_put_back(fleet: Fleet) -> None:
    """The others serve it well; whoever is asked next installs that one again."""
    made = fleet.request()
    work = Work.of(requests.get(made.id))
    request_runs.take(made.id, "run", timedelta(seconds=60))
    places.install(work, fleet.open, Title.CERTIFICATE_INSTALLED)
    third = fleet.webs["web03"]
    changed = requests.get(made.id)
    moved = changed.plan.also_on[1].model_copy(
        update={"addresses": (f"127.0.0.1:{fleet.webs['web02'].plain}",)}
    )
    plan = changed.plan.model_copy(
        update={"also_on": (changed.plan.also_on[0], moved), "install_timeout_seconds": 1}
    )
    changed = replace(changed, plan=plan)
    with pytest.raises(ProbeFailed, match=r"passed on 2 of 3; web03: "):
        places.test(Work.of(changed), fleet.open)

    new = fleet.bundle.chain.fingerprint
    assert [new, new, third.old.chain.fingerprint] == fleet.served
    assert place_rows.count_installed(made.id) == 2
    assert "applied on 3 of 3" in fleet.run(made.id)[0]
    assert [new] * 3 == fleet.served


def test_back_on_all_of_them(fleet: Fleet) -> None:
    """To one of ours; what each machine had before us is its own, and no one certificate."""
    fleet.served_by(fleet.request())
    first = fleet.bundle
    with pytest.raises(InvalidRequest, match="is not kept"):
        order_rollback(LOCATION, actor="test")
    fleet.bundle = fleet.ca.bundle(WWW)
    fleet.served_by(fleet.request())
    assert [fleet.bundle.chain.fingerprint] * 3 == fleet.served

    fleet.served_by(order_rollback(LOCATION, actor="test"))

    assert [first.chain.fingerprint] * 3 == fleet.served


def test_a_key_cannot_stay_on_several_machines(fleet: Fleet) -> None:
    """It would have to travel."""
    with transaction() as connection:
        profile = {"name": "p", "workflow": "web-server", "ca": "ca", "key": {"location": "host"}}
        configured.apply_profiles(connection, [ProfileConfig.model_validate(profile)], "test")

    with pytest.raises(InvalidRequest, match="several machines"):
        plans.for_location(LOCATION)
