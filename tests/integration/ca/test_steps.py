"""Every CA through the steps that appliance and delivery requests use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from blocks.ca.certcentral import CertCentral
from blocks.dns.powerdns import PowerDns
from certrail.configuration.plan import ConnectorRef, Plan
from certrail.configuration.profile import Validation
from certrail.connectors import ChallengeResponder, ValidatesDomains
from certrail.dns.responder import Dns01Responder
from certrail.errors import NotIssued, Rejected, Unreachable
from certrail.model import Action, Challenge, ChallengeKind, Workflow
from certrail.steps import issuing
from certrail.steps.outcome import Outcome, Work
from certrail.store import certificates, new_requests, orders, request_runs, requests
from certrail.store.database import locked, transaction
from certrail.store.requests import Reason
from certrail.store.schema import endpoints
from certrail.tracker import StepStatus
from tests.contract.ca_cases import CASES, REFUSED, ZONE, Case, Opens, World
from tests.support.certcentral_api import certcentral_api
from tests.support.dns_servers import powerdns
from tests.support.scripted import http_reply

LEASE = timedelta(seconds=60)


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture(scope="module")
def world(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with case.world(tmp_path_factory.mktemp("world")) as world:
        yield world


class Proving(ChallengeResponder):
    """Publishes where the world's CA looks; remembers what is out there."""

    kind = ChallengeKind.DNS_01

    def __init__(self, world: World) -> None:
        self._world = world
        self.out: list[Challenge] = []

    def publish(self, challenges: Sequence[Challenge]) -> str:
        for challenge in challenges:
            self._world.prove(challenge)
            self.out.append(challenge)
        return "published"

    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        self.out = [each for each in self.out if each not in challenges]


@contextmanager
def opened(responder: ChallengeResponder) -> Iterator[ChallengeResponder]:
    yield responder


def start(name: str, **changes: object) -> Work:
    """Make a delivery request for *name* and begin its first run."""
    settings = {
        "location": f"vault/{name}",
        "names": (name,),
        "addresses": (),
        "sni": None,
        "workflow": Workflow.DELIVERY,
        "profile": "inside",
        "ca": ConnectorRef(name="ca", slug="ca-any"),
        "validation": Validation(method="dns-01", dns="ns", timeout_seconds=20),
        "dns": ConnectorRef(name="ns", slug="dns-any"),
        "issue_timeout_seconds": 20,
        **changes,
    }
    plan = Plan.model_validate(settings)
    with transaction() as connection:
        endpoint = connection.execute(
            insert(endpoints).values(location=plan.location).returning(endpoints.c.id)
        ).scalar_one()
    made = new_requests.create(
        endpoint,
        action=Action.ENROLL,
        plan=plan,
        reason=Reason("requested", "because"),
        actor="test",
    )
    return again(made.id)


def again(request_id: object) -> Work:
    """Begin the next run, as a retry does."""
    return Work.of(request_runs.take(request_id, "worker", LEASE))  # type: ignore[arg-type]


def issue(work: Work, block: Opens, responder: ChallengeResponder) -> Outcome:
    with block.connect() as ca:
        return issuing.issue(work, ca, lambda _: opened(responder))


def test_a_request_gets_its_certificate(database_url: str, world: World) -> None:
    """One step with any CA: proofs where it wants them, a chain at the end, nothing left."""
    name, responder = world.name(), Proving(world)
    work = start(name)

    outcome = issue(work, world.block, responder)

    assert outcome.status is StepStatus.COMPLETED
    assert "valid to" in outcome.detail
    certificate_id = requests.get(work.request.id).certificate_id
    assert certificate_id is not None
    record = orders.live(work.request.id)
    assert record is not None
    assert record.csr is not None
    certificates.get(certificate_id).chain.must_answer(record.csr, (name,))
    assert responder.out == []


def test_running_again_issues_nothing_more(database_url: str, world: World) -> None:
    """A crash right after the step makes the next run do it again."""
    name, responder = world.name(), Proving(world)
    work = start(name)
    first = issue(work, world.block, responder)
    issued = world.issued(name)

    second = issue(again(work.request.id), world.block, responder)

    assert second.detail.split(",")[0] == first.detail.split(",")[0]
    assert world.issued(name) == issued


@pytest.mark.needs("relay")
def test_a_lost_reply_is_made_good_by_the_next_run(
    case: Case, database_url: str, world: World
) -> None:
    """The CA did it and the connection broke: the retry ends with that very certificate."""
    name, responder = world.name(), Proving(world)
    work = start(name)
    with world.losing(http_reply(502)) as block, pytest.raises(Unreachable):
        issue(work, block, responder)

    outcome = issue(again(work.request.id), world.block, responder)

    assert outcome.status is StepStatus.COMPLETED
    assert world.issued(name) == (2 if "remembers" in case.lacks else 1)


@pytest.mark.needs("refusal")
def test_a_refusal_frees_the_request_for_another_order(
    case: Case, database_url: str, world: World
) -> None:
    """What the CA refused for good is not asked for again under the same order."""
    work = start(REFUSED)

    with pytest.raises(Rejected) as caught:
        issue(work, world.block, Proving(world))

    assert caught.value.remedy
    assert not caught.value.retryable


@pytest.mark.parametrize("label", ["", "_dnsauth"])
def test_certcentral_proofs_go_through_our_dns_connectors(
    label: str, database_url: str, tmp_path: Path
) -> None:
    """The token stands at the domain (or below it), not at ACME's place, and is removed."""
    with (
        powerdns(tmp_path, [ZONE]) as dns,
        certcentral_api(lambda name: set(dns.values(name))) as api,
    ):
        ns = PowerDns(
            url=dns.url,
            api_key=dns.api_key,
            nameservers=[dns.endpoint],
            poll_interval=0.05,
            propagation_timeout=5,
        )
        block = CertCentral(
            url=api.base,
            api_key=api.key,
            organization_id=api.organization,
            dcv_label=label,
            poll_interval=0.05,
        )
        work = start(f"shop.{ZONE}")
        with ns.connect() as provider, block.connect() as ca:
            assert isinstance(ca, ValidatesDomains)
            responder = Dns01Responder(provider, lock=locked, resolver=ns.resolver())
            outcome = issuing.issue(work, ca, lambda _: opened(responder))

        asked = [path for method, path in api.calls if method == "PUT"]
        assert "dns-01 through ns" in outcome.detail
        assert asked
        assert all(path.endswith("/dcv/validate-token") for path in asked)
        place = f"{label}.shop.{ZONE}" if label else f"shop.{ZONE}"
        assert dns.values(place) == frozenset()
        assert dns.values(f"_acme-challenge.shop.{ZONE}") == frozenset()


def test_waiting_for_approval_says_so(database_url: str, tmp_path: Path) -> None:
    """People see what the request waits for; when it is approved, a retry goes on."""
    txt: dict[str, set[str]] = {}
    with certcentral_api(lambda name: txt.get(name, set())) as api:
        block = CertCentral(
            url=api.base,
            api_key=api.key,
            organization_id=api.organization,
            product="private_ssl_flex",
            skip_approval=False,
            poll_interval=0.05,
        )
        work = start(f"intranet.{ZONE}", validation=None, dns=None, issue_timeout_seconds=1)
        responder = Proving(_Nowhere())
        with pytest.raises(NotIssued, match="an administrator has to approve it"):
            issue(work, block, responder)

        (number,) = api.orders
        api.approve(number)
        outcome = issue(again(work.request.id), block, responder)

        assert outcome.status is StepStatus.COMPLETED
        assert list(api.orders) == [number]


class _Nowhere(World):
    """A world in which nothing is to be proven."""

    def issued(self, name: str) -> int:
        return 0

    def is_revoked(self, chain: object) -> bool:
        return False

    def snapshot(self) -> object:
        return None
