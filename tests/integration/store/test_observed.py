"""What a look at the endpoints finds is kept, and told when it is somebody else's certificate."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from certrail.model import Chain
from certrail.steps import looking
from certrail.store import endpoint_detail, observed
from certrail.store.database import transaction
from certrail.store.schema import endpoints, outbox
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory
from tests.support.process import free_port
from tests.support.tls_servers import Authority, Issued, tls_server

ROOT = Authority.root()


def chain(issued: Issued) -> Chain:
    return Chain.of(list(issued.chain))


def look() -> looking.Looked:
    return looking.look_around(most=100, within=timedelta(minutes=1), clock=time)


def drifted() -> list[dict[str, Any]]:
    query = (
        select(outbox.c.payload)
        .where(outbox.c.event == "certrail.certificate.drifted")
        .order_by(outbox.c.id)
    )
    with transaction() as connection:
        return [dict(payload) for payload in connection.execute(query).scalars()]


def risks(location: str) -> list[str]:
    return [str(risk.code) for risk in endpoint_detail.get(location).row.risks]


def test_another_certificate_than_ours_is_told_once_for_each_change(inventory: Inventory) -> None:
    """Whoever replaced it did so for a reason, and our next renewal will undo it."""
    ours, theirs = ROOT.issue("www.drift.test"), ROOT.issue("www.drift.test")
    location = "www.drift.test:443"

    inventory.endpoint(location, profile="p", target="web")
    inventory.certificate(location, chain(ours))

    def seen(issued: Issued, times: int) -> None:
        with tls_server(issued) as port:
            inventory.endpoint(location, profile="p", target="web", address=f"127.0.0.1:{port}")
            for _ in range(times):
                assert look().answered == 1

    seen(ours, 1)
    assert drifted() == []

    seen(theirs, 3)

    (told,) = drifted()
    assert told["location"] == location
    assert (told["served"], told["installed"], told["issued_by"]) == (
        chain(theirs).fingerprint,
        chain(ours).fingerprint,
        "Test Root",
    )
    assert "served-differs" in risks(location)
    seen(ours, 1)
    assert len(drifted()) == 1
    assert "served-differs" not in risks(location)
    seen(theirs, 1)
    assert len(drifted()) == 2


def test_one_machine_of_several_is_enough(inventory: Inventory) -> None:
    """Behind a balancer some clients get the wrong one; each look sees both."""
    ours, theirs = ROOT.issue("pool.test"), ROOT.issue("pool.test")
    with tls_server(ours) as right, tls_server(theirs) as wrong:
        inventory.endpoint(
            "pool.test:443",
            profile="p",
            target="web",
            address=[f"127.0.0.1:{right}", f"127.0.0.1:{wrong}", f"127.0.0.1:{free_port()}"],
        )
        inventory.certificate("pool.test:443", chain(ours))
        found = [look() for _ in range(3)]

    assert [one.drifted for one in found] == [("pool.test:443",), (), ()]
    (told,) = drifted()
    assert told["seen_at"] == f"127.0.0.1:{wrong}"


def test_what_a_request_is_doing_is_no_news(inventory: Inventory) -> None:
    """Between the switch and the end of the request, the record has the certificate before it."""
    ours, newer = ROOT.issue("busy.test"), ROOT.issue("busy.test")
    inventory.endpoint("busy.test:443", profile="p", target="web")
    inventory.certificate("busy.test:443", chain(ours))
    inventory.request("busy.test:443", status=Status.IN_PROGRESS)
    place = observed.place_of("busy.test:443")
    assert place is not None

    assert not observed.keep_for(place, [({"address": "a"}, chain(newer))])

    assert drifted() == []
    inventory.certificate("busy.test:443", chain(newer))
    assert not observed.keep_for(place, [({"address": "a"}, chain(newer))])


def test_the_same_again_is_not_written_again(inventory: Inventory) -> None:
    """Each write lets the renewal be decided anew, for a hundred thousand endpoints each hour."""
    ours = ROOT.issue("same.test")
    with tls_server(ours) as port:
        inventory.endpoint("same.test:443", address=f"127.0.0.1:{port}")
        look()
        before = endpoint_detail.get("same.test:443")
        look()
    assert endpoint_detail.get("same.test:443").observed == before.observed
    inventory.set("same.test:443", observed_at=datetime.now(UTC) - timedelta(days=2))
    place = observed.place_of("same.test:443")
    assert place is not None
    assert before.observed
    observed.keep_for(place, [(before.observed, chain(ours))])
    with transaction() as connection:
        at = connection.execute(select(endpoints.c.observed_at)).scalar_one()
    assert datetime.now(UTC) - at < timedelta(hours=1)


def test_what_only_an_agent_reaches_is_left_to_it(inventory: Inventory) -> None:
    """From here another machine may answer under the same address."""
    inventory.endpoint("far.test:443", profile="p", target="web", executor="branch-1")
    inventory.endpoint("store/object", profile="p", target="web")
    inventory.endpoint("silent.test:443", address=f"127.0.0.1:{free_port()}")

    inventory.connector("far-web", "host-ssh", executor="branch-2")
    inventory.endpoint("its.test:443", profile="p", target="far-web")
    inventory.endpoint("own.test:443", profile="p", target="far-web", executor="branch-1")

    assert [place.location for place in observed.known(10)] == ["silent.test:443"]
    assert observed.behind() == ["branch-1", "branch-2"]
    assert {place.location for place in observed.known(10, "branch-1")} == {
        "far.test:443",
        "own.test:443",
    }
    assert [place.location for place in observed.known(10, "branch-2")] == ["its.test:443"]
    assert (look().answered, look().silent) == (0, 1)
