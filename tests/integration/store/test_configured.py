"""Applying profiles and endpoints, and keeping what scans saw."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select

from certrail.configuration.endpoint import EndpointConfig
from certrail.configuration.profile import ProfileConfig
from certrail.store import configured, endpoint_detail, observed, plans
from certrail.store import inventory as query
from certrail.store.configured import Change, Effect, FieldChange
from certrail.store.database import transaction
from certrail.store.schema import audit
from tests.integration.store.conftest import Inventory, issue


def endpoints(*given: Mapping[str, object]) -> list[Change]:
    """Apply endpoints."""
    with transaction() as connection:
        wanted = [EndpointConfig.model_validate(one) for one in given]
        return configured.apply_endpoints(connection, wanted, "test")


def profiles(*given: Mapping[str, object]) -> list[Change]:
    """Apply profiles."""
    with transaction() as connection:
        wanted = [ProfileConfig.model_validate(one) for one in given]
        return configured.apply_profiles(connection, wanted, "test")


def test_applying_twice_changes_nothing(inventory: Inventory) -> None:
    """A file is applied by every run of somebody's pipeline."""
    profile = {"name": "q", "workflow": "delivery", "ca": "ca", "renew": {"auto": False}}
    endpoint = {"location": "A.test:443", "names": ["a.test"], "profile": "q", "tags": ["x"]}

    assert [c.effect for c in (*profiles(profile), *endpoints(endpoint))] == [Effect.CREATED] * 2
    assert [c.effect for c in (*profiles(profile), *endpoints(endpoint))] == [Effect.UNCHANGED] * 2


def test_changed_fields_are_named_with_their_values(inventory: Inventory) -> None:
    """People see what an apply does before they let it."""
    profiles({"name": "q", "workflow": "delivery", "ca": "ca"})
    endpoints({"location": "a.test:443", "server": {"kind": "nginx", "site": "a"}, "target": "web"})

    changed = profiles(
        {"name": "q", "workflow": "delivery", "ca": "ca", "renew": {"at_lifetime_fraction": 0.5}}
    )
    moved = endpoints(
        {"location": "a.test:443", "server": {"kind": "nginx", "site": "b"}, "profile": "q"}
    )

    assert changed[0].fields == (FieldChange("renew.at_lifetime_fraction", 0.67, 0.5),)
    assert moved[0].fields == (
        FieldChange("profile", None, "q"),
        FieldChange("server.site", "a", "b"),
        FieldChange("target", "web", None),
    )


def test_every_change_is_in_the_audit_trail(inventory: Inventory) -> None:
    """Who changed what, and nothing where nothing changed."""
    endpoints({"location": "b.test:443"})
    endpoints({"location": "b.test:443"})
    endpoints({"location": "b.test:443", "tags": ["x"]})

    with transaction() as connection:
        rows = connection.execute(
            select(audit).where(audit.c.object == "b.test:443").order_by(audit.c.id)
        ).all()

    assert [(row.actor, row.action) for row in rows] == [
        ("test", "endpoint.created"),
        ("test", "endpoint.changed"),
    ]
    assert rows[1].detail == {"fields": ["tags"]}


def test_thousands_of_endpoints_in_one_go(inventory: Inventory) -> None:
    """An inventory is filled from a list of a whole company."""
    many: list[dict[str, object]] = [
        {"location": f"h{n}.test:443", "profile": "p", "target": "web"} for n in range(2500)
    ]

    assert {change.effect for change in endpoints(*many)} == {Effect.CREATED}
    many[7]["tags"] = ["new"]
    again = endpoints(*many)

    assert [change.name for change in again if change.effect is Effect.CHANGED] == ["h7.test:443"]
    assert query.count() == 2500


def test_a_changed_connector_has_to_be_checked_again(inventory: Inventory) -> None:
    """What a check found was found with other settings."""
    with transaction() as connection:
        configured.keep_check(connection, "web", ok=False, message="no")
        configured.keep_connector(
            connection, Change("connector", "web", Effect.CHANGED), "host-ssh", "test"
        )
        found = {row.name: row for row in configured.all_connectors(connection)}

    assert found["web"].check_ok is None
    assert found["web"].check_message is None


def test_a_scan_adds_what_is_not_known(inventory: Inventory) -> None:
    """An address that serves a certificate is an endpoint that nobody manages yet."""
    chain = issue("a.test")

    kept = observed.keep(
        "127.0.0.9:8443", {"fingerprint": chain.fingerprint, "starttls": "none"}, chain
    )

    (row,) = query.find(query.parse_filter("profile="))
    assert kept == row.location == "127.0.0.9:8443"
    assert row.names == ("a.test",)
    assert observed.keep("127.0.0.9:1", {}, None) is None


def test_a_scan_of_a_shared_address_says_nothing_about_each_endpoint(inventory: Inventory) -> None:
    """Without a name a server shows its default site, whatever endpoint is meant."""
    inventory.endpoint("a.test:443", address="127.0.0.9:8443")
    inventory.endpoint("b.test:443", address="127.0.0.9:8443")
    chain = issue("default.test")

    kept = observed.keep("127.0.0.9:8443", {"fingerprint": chain.fingerprint}, chain)

    assert kept == "a.test:443"
    assert query.count() == 2
    assert all(row.fingerprint is None for row in query.find())


def test_a_scan_of_a_location_is_kept(inventory: Inventory) -> None:
    """The list shows what is served."""
    inventory.endpoint("a.test:443")
    chain = issue("a.test")
    place = observed.place_of("A.test:443")
    assert place is not None

    observed.keep_for(place, [({"fingerprint": chain.fingerprint}, chain)])
    observed.keep_for(place, [({"findings": []}, None)])

    assert query.find()[0].fingerprint == chain.fingerprint
    assert observed.place_of("b.test:443") is None


def test_an_object_with_capital_letters_is_found_again(inventory: Inventory) -> None:
    """Everything looks for lower case; what a vault calls it keeps its case."""
    inventory.connector("kv", "delivery-vault-kv")
    profiles({"name": "q", "workflow": "delivery", "ca": "ca"})
    given = {
        "location": "kv/Apps/MyCert",
        "names": ["a.test"],
        "profile": "q",
        "target": "kv",
        "server": {"format": "pem"},
    }

    assert [change.effect for change in endpoints(given)] == [Effect.CREATED]
    assert [change.effect for change in endpoints(given)] == [Effect.UNCHANGED]
    assert endpoint_detail.get("kv/Apps/MyCert").row.location == "kv/apps/mycert"
    assert plans.for_location("kv/Apps/MyCert").plan.server == {
        "format": "pem",
        "site": "Apps/MyCert",
    }
