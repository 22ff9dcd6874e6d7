"""A request's plan is made from endpoint, profile and connectors as they are now."""

from __future__ import annotations

import pytest

from certrail.errors import InvalidRequest, NotFound
from certrail.model import Action
from certrail.servers.registry import check_settings
from certrail.store import plans
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, issue


def test_a_plan_has_all_that_a_request_needs(inventory: Inventory) -> None:
    """Whatever is changed afterwards does not reach the request."""
    inventory.profile(
        "p",
        validation={"method": "dns-01", "dns": "ns"},
        key={"algorithm": "rsa-2048"},
        trust_pem="PEM",
        ca_profile="shortlived",
        renew={"use_ari": False},
    )
    inventory.endpoint(
        "www.test:443",
        names=["www.test", "b.test"],
        address="127.0.0.1:1",
        profile="p",
        target="web",
        server={"kind": "nginx", "site": "www.test"},
        starttls="smtp",
    )

    prepared = plans.for_location("WWW.test:443")

    plan = prepared.plan
    assert (plan.names, plan.addresses, plan.sni) == (
        ("www.test", "b.test"),
        ("127.0.0.1:1",),
        "www.test",
    )
    assert plan.ca.reference == "ca-acme/ca"
    assert plan.dns is not None
    assert plan.dns.reference == "dns-rfc2136/ns"
    assert plan.target is not None
    assert plan.target.reference == "host-ssh/web"
    assert (plan.key_algorithm, plan.trust_pem, plan.ca_profile) == (
        "rsa-2048",
        "PEM",
        "shortlived",
    )
    assert (plan.replaces, plan.starttls) == (False, "smtp")
    assert prepared.default_action is Action.ENROLL


def test_a_profile_enables_tls_where_a_server_can_have_it(inventory: Inventory) -> None:
    """What the endpoint itself says counts more, and HAProxy has no such setting."""
    inventory.profile("tls", enable_tls=True)
    servers: dict[str, dict[str, object]] = {
        "a.test:443": {"kind": "nginx", "site": "a.test"},
        "b.test:443": {"kind": "apache", "site": "b.test", "enable_tls": False},
        "c.test:443": {"kind": "haproxy", "site": "c.test"},
    }
    for location, server in servers.items():
        inventory.endpoint(location, profile="tls", target="web", server=server)

    found = {location: plans.for_location(location).plan.server for location in servers}

    assert found == {
        **servers,
        "a.test:443": {**servers["a.test:443"], "enable_tls": True},
    }
    for server in found.values():
        check_settings(server)


def test_names_default_to_the_host(inventory: Inventory) -> None:
    """Most endpoints have one name, the one they are called by."""
    inventory.endpoint("www.test:443", profile="p", target="web")
    inventory.endpoint("127.0.0.1:443", profile="p", target="web")
    inventory.endpoint("127.0.0.2:443", profile="p", target="web", sni="c.test")
    inventory.endpoint("web/vs-1", profile="p", target="web", names=["*.d.test", "d.test"])

    assert plans.for_location("www.test:443").plan.names == ("www.test",)
    assert plans.for_location("127.0.0.1:443").plan.names == ("127.0.0.1",)
    assert plans.for_location("127.0.0.1:443").plan.sni is None
    assert plans.for_location("127.0.0.2:443").plan.names == ("c.test",)
    assert plans.for_location("web/vs-1").plan.sni == "d.test"


@pytest.mark.parametrize(
    ("location", "fields", "told"),
    [
        ("a.test:443", {"target": "web"}, "has no profile"),
        ("a.test:443", {"profile": "p"}, "has no target"),
        ("web/vs-1", {"profile": "p", "target": "web"}, "has no names"),
    ],
)
def test_what_is_missing_is_told(
    location: str, fields: dict[str, str], told: str, inventory: Inventory
) -> None:
    """A request that cannot work is refused before it exists."""
    inventory.endpoint(location, **fields)

    with pytest.raises(InvalidRequest, match=told) as caught:
        plans.for_location(location)
    assert "certrail apply" in caught.value.remedy


def test_an_unknown_endpoint(inventory: Inventory) -> None:
    """Nothing is guessed."""
    with pytest.raises(NotFound, match="no endpoint a"):
        plans.for_location("a.test:443")


def test_many_plans_at_once(inventory: Inventory) -> None:
    """A bulk job asks once for all, and learns which cannot be done, and why."""
    good = inventory.endpoint("a.test:443", profile="p", target="web")
    bad = inventory.endpoint("b.test:443", target="web")

    found = plans.for_endpoints([good, bad])

    assert isinstance(found[good], plans.Prepared)
    assert isinstance(found[bad], InvalidRequest)


def test_a_second_certificate_is_a_renewal(inventory: Inventory) -> None:
    """One that a scan saw is not ours; one that we installed is."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    with_scan = issue("a.test")
    inventory.set("a.test:443", observed={"fingerprint": with_scan.fingerprint})
    assert plans.for_location("a.test:443").default_action is Action.ENROLL

    inventory.certificate("a.test:443", with_scan)

    assert plans.for_location("a.test:443").default_action is Action.RENEW


def test_redeploying_takes_what_was_obtained_last(inventory: Inventory) -> None:
    """A certificate that could not be installed is installed again; it is never ordered again."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    with pytest.raises(InvalidRequest, match="nothing to install again"):
        plans.for_location("a.test:443").certificate_for(Action.REDEPLOY)
    installed = inventory.certificate("a.test:443", issue("a.test"))
    assert plans.for_location("a.test:443").certificate_for(Action.REDEPLOY) == installed
    inventory.endpoint("b.test:443", profile="p", target="web")
    obtained = inventory.certificate("b.test:443", issue("b.test"))
    inventory.request("a.test:443", status=Status.AUTOMATION_FAILED, certificate_id=obtained)

    prepared = plans.for_location("a.test:443")

    assert prepared.certificate_for(Action.REDEPLOY) == obtained
    assert prepared.certificate_for(Action.RENEW) is None
    assert prepared.certificate_id == installed
