"""Why endpoints are at risk: the list's SQL and the pure rule say the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from certrail.risk import RiskCode
from certrail.store import inventory as query
from certrail.store.database import transaction
from certrail.store.schema import executors
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, issue

NOW = datetime.now(UTC)


def prepare(inventory: Inventory, code: RiskCode) -> None:
    """Make the endpoint a.test:443 such that this reason holds."""
    checked = {"check_ok": False, "checked_at": NOW, "check_message": "401"}
    inventory.endpoint("a.test:443", profile="p", target="web", names=["a.test"])
    match code:
        case RiskCode.CERTIFICATE_EXPIRED:
            inventory.certificate("a.test:443", issue("a.test", days=-1))
        case RiskCode.RENEWAL_OVERDUE:
            inventory.set("a.test:443", next_renewal_at=NOW - timedelta(days=2))
        case RiskCode.RENEWAL_TOO_LATE:
            inventory.certificate("a.test:443", issue("a.test", days=3))
            inventory.set("a.test:443", next_renewal_at=NOW + timedelta(days=4))
        case RiskCode.RENEWAL_HELD:
            inventory.set("a.test:443", renewal={"code": "held"})
        case RiskCode.SERVED_DIFFERS:
            theirs = issue("a.test", issuer="Other CA")
            inventory.certificate("a.test:443", theirs)
            inventory.certificate("a.test:443", issue("a.test"))
            inventory.set(
                "a.test:443", observed={"fingerprint": theirs.fingerprint}, observed_at=NOW
            )
        case RiskCode.EXECUTOR_SILENT:
            inventory.set("a.test:443", executor="edge")
            with transaction() as connection:
                connection.execute(
                    insert(executors).values(
                        pool="agents",
                        name="edge",
                        version="1",
                        host="edge",
                        started_at=NOW,
                        last_seen_at=NOW,
                        silent_since=NOW,
                    )
                )
        case RiskCode.CA_CHECK_FAILING:
            inventory.connector("ca-2", "ca-acme", **checked)
            inventory.profile("p", ca="ca-2")
        case RiskCode.DNS_CHECK_FAILING:
            inventory.connector("ns-2", "dns-rfc2136", **checked)
            inventory.profile("p", validation={"method": "dns-01", "dns": "ns-2"})
        case RiskCode.TARGET_CHECK_FAILING:
            inventory.connector("web-2", "host-ssh", **checked)
            inventory.endpoint("a.test:443", profile="p", target="web-2", names=["a.test"])
        case RiskCode.PROFILE_CHANGED:
            inventory.certificate("a.test:443", issue("a.test"))
            inventory.profile("p", key={"algorithm": "rsa-4096"})


@pytest.mark.parametrize("code", RiskCode)
def test_every_reason_is_told_filtered_and_seen_in_the_status(
    code: RiskCode, inventory: Inventory
) -> None:
    """Somebody who filters for a reason must get the rows that show it, and no others."""
    prepare(inventory, code)
    inventory.endpoint("calm.test:443", profile="p" if code is RiskCode.SERVED_DIFFERS else None)

    rows = query.find(query.parse_filter(f"risks={code}"))

    assert [row.location for row in rows] == ["a.test:443"]
    assert [risk.code for risk in rows[0].risks] == [code]
    assert rows[0].risks[0].remedy
    assert rows[0].automation_status is Status.AUTOMATION_AT_RISK
    assert query.count(query.parse_filter("status=automation-at-risk")) == 1
    assert query.count(query.parse_filter("status=automation-at-risk,automation-failed")) == 1
    assert [row.location for row in query.find(query.parse_filter("risks="))] == ["calm.test:443"]
    assert query.count(query.parse_filter(f"risks~{code.value[2:6]}")) == 1


def test_a_key_on_several_hosts_is_a_finding(inventory: Inventory) -> None:
    """Who breaks into one of them has the key of all; ports of one host are no matter."""
    for host in ("a.test:443", "a.test:8443", "b.test:443"):
        inventory.endpoint(host)
    shared = issue("a.test")
    inventory.certificate("a.test:443", shared)
    inventory.certificate("a.test:8443", shared)

    assert query.count(query.parse_filter("finding=key-reused")) == 0
    inventory.certificate("b.test:443", shared)

    rows = query.find(query.parse_filter("finding=key-reused"))
    assert [row.location for row in rows] == ["a.test:443", "a.test:8443", "b.test:443"]
    assert {finding["code"] for row in rows for finding in row.security_findings} == {"key-reused"}
    assert query.count(query.parse_filter("findings=")) == 0


@pytest.mark.parametrize(
    "sort", ["location", "-location", "days_left", "-days_left", "status", "-status", "tags"]
)
def test_pages_are_the_list(sort: str, inventory: Inventory) -> None:
    """A page goes on exactly behind the one before, in any order, empty values too."""
    for number in range(9):
        location = f"h{number}.test:443"
        tags = ["x"] if number % 2 else []
        inventory.endpoint(location, tags=tags, profile="p" if number % 3 else None, target="web")
        if number % 4:
            inventory.certificate(location, issue(f"h{number}.test", days=number % 3 + 0.5))
    whole = [row.location for row in query.find(sort=sort)]

    paged: list[str] = []
    while page := query.find(sort=sort, limit=2, after=paged[-1] if paged else ""):
        paged += [row.location for row in page]

    assert sorted(whole) == [f"h{number}.test:443" for number in range(9)]
    assert paged == whole
    assert [row.location for row in query.stream(sort=sort, page=4)] == whole


def test_a_certificate_stored_after_it_was_seen_is_shown(inventory: Inventory) -> None:
    """What a list shows does not depend on what was written first."""
    seen = issue("a.test", issuer="Late CA")
    inventory.endpoint("a.test:443")
    inventory.endpoint("b.test:443")
    inventory.set("a.test:443", observed={"fingerprint": seen.fingerprint}, observed_at=NOW)

    inventory.certificate("b.test:443", seen)

    assert query.count(query.parse_filter("issuer='late ca'")) == 2
