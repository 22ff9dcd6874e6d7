"""The inventory's one query, against a real PostgreSQL."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Boolean, DateTime, Text, cast, literal, select

from certrail.cli._selection import Selection, selected
from certrail.errors import InvalidRequest, NotFound
from certrail.store import endpoint_detail
from certrail.store import inventory as query
from certrail.store.database import transaction
from certrail.store.inventory_query import FIELDS, UNSORTED, status_column
from certrail.store.views import SYSTEM_VIEWS
from certrail.tracker import ACTIVE, FAILED, SUCCESSFUL, Status, endpoint_status
from tests.integration.store.conftest import OTHER_KEY, Inventory, issue

NOW = datetime.now(UTC)


def locations(*filters: str, sort: str = "location", limit: int | None = None) -> list[str]:
    """Return the locations that the filters leave."""
    clauses = [clause for text in filters for clause in query.parse_filter(text)]
    return [row.location for row in query.find(clauses, sort=sort, limit=limit)]


def selection(**given: Any) -> Selection:
    """Return what the options of a list choose, of which most were not given."""
    names = ("status", "job", "profile", "target", "expires_within", "columns", "sort", "view")
    options: dict[str, Any] = dict.fromkeys(names)
    options |= {"expressions": (), "tag": (), "add_column": ()}
    return selected(**{**options, **given})


def only(location: str) -> query.Endpoint:
    """Return the one row."""
    (row,) = query.find(query.parse_filter(f"location={location}"))
    return row


def test_an_endpoint_without_anything(inventory: Inventory) -> None:
    """Every column has a value or is plainly empty."""
    inventory.endpoint("a.test:443")

    row = only("a.test:443")

    assert row.automation_status is Status.NOT_CONFIGURED
    assert row.names == ()
    assert row.security_findings == ()
    assert (row.not_after, row.days_left, row.request_id, row.job_name) == (None,) * 4


def test_an_endpoint_with_everything(inventory: Inventory) -> None:
    """Certificate, profile, target and last request stand in one row."""
    inventory.endpoint(
        "a.test:443",
        names=["a.test", "b.test"],
        profile="p",
        target="web",
        server={"kind": "nginx", "site": "a.test"},
        tags=["shop", "x"],
    )
    chain = issue("a.test", "b.test", days=20.5)
    inventory.certificate("a.test:443", chain)
    request = inventory.request("a.test:443")

    row = only("a.test:443")

    assert row.automation_status is Status.AUTOMATION_REQUESTED
    assert (row.profile, row.workflow, row.target, row.server) == (
        "p",
        "web-server",
        "web",
        "nginx",
    )
    assert (row.names, row.common_name, row.tags) == (("a.test", "b.test"), "a.test", ("shop", "x"))
    assert (row.days_left, row.issuer, row.key) == (20, "Test CA", "ECDSA P-256")
    assert row.fingerprint == chain.fingerprint
    assert row.request_id == request.id


def test_status_in_sql_is_the_status_in_python(database_url: str) -> None:
    """The list filters by what the page of an endpoint shows; they must never differ."""
    last = [None, *ACTIVE, *FAILED, *SUCCESSFUL, Status.CANCELLED]
    ends = [None, NOW - timedelta(hours=1), NOW - timedelta(hours=25)]
    flags = [False, True]
    renewal = [None, NOW + timedelta(days=3)]
    cases = list(itertools.product(flags, last, ends, flags, flags, renewal, flags))
    columns = [
        status_column(
            configured=cast(literal(configured), Boolean),
            last_request=cast(literal(request), Text),
            ended_at=cast(literal(ended), DateTime(timezone=True)),
            automatic=cast(literal(automatic), Boolean),
            auto_renew=cast(literal(auto), Boolean),
            next_renewal_at=cast(literal(next_at), DateTime(timezone=True)),
            at_risk=cast(literal(risk), Boolean),
        ).label(f"c{number}")
        for number, (configured, request, ended, automatic, auto, next_at, risk) in enumerate(cases)
    ]
    found: list[str] = []
    with transaction() as connection:
        for start in range(0, len(columns), 100):
            found += connection.execute(select(*columns[start : start + 100])).one()

    assert found == [
        endpoint_status(
            configured=configured,
            last_request=request,
            ended_at=ended,
            automatic=automatic,
            auto_renew=auto,
            next_renewal_at=next_at,
            at_risk=risk,
        )
        for configured, request, ended, automatic, auto, next_at, risk in cases
    ]


def test_a_success_goes_back_to_rest_after_a_day(inventory: Inventory) -> None:
    """A list full of old successes hides what is going on; the next renewal is news."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    old = NOW - timedelta(days=2)
    inventory.request("a.test:443", status=Status.AUTOMATION_SUCCESSFUL, ended_at=old)

    assert only("a.test:443").automation_status is Status.READY

    inventory.set("a.test:443", next_renewal_at=NOW + timedelta(days=9))

    assert only("a.test:443").automation_status is Status.AUTO_RENEW_SCHEDULED
    inventory.profile("p", renew={"auto": False})
    assert only("a.test:443").automation_status is Status.READY


def test_the_newest_request_counts(inventory: Inventory) -> None:
    """An old failure says nothing once a later request succeeded."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    inventory.request("a.test:443", status=Status.AUTOMATION_FAILED, ended_at=NOW)
    inventory.request("a.test:443", status=Status.AUTOMATION_SUCCESSFUL, ended_at=NOW)

    assert only("a.test:443").automation_status is Status.AUTOMATION_SUCCESSFUL
    assert locations("status=automation-failed") == []


def test_a_scheduled_renewal_is_told_from_a_scheduled_request(inventory: Inventory) -> None:
    """One was planned by the policy, the other by a person."""
    for name, code in (("a.test:443", "renewal-due"), ("b.test:443", "requested")):
        inventory.endpoint(name, profile="p", target="web")
        inventory.request(name, code, status=Status.AUTOMATION_SCHEDULED)

    assert locations("status=auto-renew-scheduled") == ["a.test:443"]
    assert locations("status='Automation scheduled'") == ["b.test:443"]


@pytest.mark.parametrize("risk", ["expired", "missed", "target", "ca"])
def test_what_makes_an_endpoint_at_risk(risk: str, inventory: Inventory) -> None:
    """People shall see it before the next run fails."""
    inventory.connector("broken", "host-ssh", check_ok=False, checked_at=NOW)
    inventory.connector("broken-ca", "ca-acme", check_ok=False, checked_at=NOW)
    inventory.profile("q", ca="broken-ca")
    inventory.endpoint(
        "a.test:443",
        profile="q" if risk == "ca" else "p",
        target="broken" if risk == "target" else "web",
    )
    if risk == "expired":
        inventory.certificate("a.test:443", issue("a.test", days=-1))
    if risk == "missed":
        inventory.set("a.test:443", next_renewal_at=NOW - timedelta(days=2))

    assert only("a.test:443").automation_status is Status.AUTOMATION_AT_RISK
    assert locations(*SYSTEM_VIEWS["needs-attention"].filters) == ["a.test:443"]
    inventory.set("a.test:443", last_success_at=NOW + timedelta(seconds=1))
    if risk != "expired":
        assert only("a.test:443").automation_status is not Status.AUTOMATION_AT_RISK


def test_what_is_served_is_shown_before_what_was_installed(inventory: Inventory) -> None:
    """Somebody may have put another certificate there by hand."""
    inventory.endpoint("a.test:443", profile="p", target="web")
    ours, theirs = issue("a.test"), issue("a.test", issuer="Other CA", days=5.5)
    inventory.certificate("a.test:443", ours)
    inventory.certificate("a.test:443", theirs)
    inventory.certificate("a.test:443", ours)
    inventory.set("a.test:443", last_success_at=NOW - timedelta(days=1))

    for seen in (
        {"fingerprint": theirs.fingerprint},
        {"certificate": {"fingerprint": theirs.fingerprint}},
        {"addresses": [{"fingerprint": theirs.fingerprint}]},
    ):
        inventory.set("a.test:443", observed=seen, observed_at=NOW)
        assert only("a.test:443").issuer == "Other CA"
    # What was seen before the last installation is history.
    inventory.set("a.test:443", observed_at=NOW - timedelta(days=2))
    assert only("a.test:443").issuer == "Test CA"
    # Nor does a certificate count that nobody kept.
    inventory.set("a.test:443", observed={"fingerprint": "00"}, observed_at=NOW)
    assert only("a.test:443").issuer == "Test CA"


def test_findings_of_endpoint_and_addresses_come_together(inventory: Inventory) -> None:
    """Each is told once, wherever it was found."""
    weak, old = {"code": "weak-key", "message": "…"}, {"code": "old-tls", "message": "…"}
    inventory.endpoint("a.test:443")
    inventory.endpoint("b.test:443")
    seen = {"findings": [weak], "addresses": [{"findings": [weak, old]}]}
    inventory.set("a.test:443", observed=seen, observed_at=NOW)

    assert only("a.test:443").security_findings == (weak, old)
    assert locations("finding=old-tls") == ["a.test:443"]
    assert locations("finding=old-tls,weak-key") == ["a.test:443"]
    assert locations("findings~tls") == ["a.test:443"]
    assert locations("findings!=old-tls") == ["b.test:443"]
    assert locations("findings=") == ["b.test:443"]
    assert locations("findings!=") == ["a.test:443"]


FILTERS = [
    ("location=B.test:443", "b"),
    ("location~TEST", "abc"),
    ("names=www.b.test", "b"),
    ("names~ww.b", "b"),
    ("cn=a.test", "a"),
    ("profile=p", "ab"),
    ("profile=", "c"),
    ("profile!=", "ab"),
    ("profile!=p", "c"),
    ("profile=p,q", "ab"),
    ("workflow=web-server", "ab"),
    ("ca=CA", "ab"),
    ("dns=NS", "ab"),
    ("dns~n", "ab"),
    ("dns!=ns", "c"),
    ("dns=", "c"),
    ("step=", "abc"),
    ("step='Domain validated'", ""),
    ("executor=", "abc"),
    ("lifetime_days>=40", "ab"),
    ("target=WEB", "ab"),
    ("server=nginx", "b"),
    ("tag=shop", "ab"),
    ("tag=shop and tag=x", "b"),
    ("tag=x,y", "bc"),
    ("tags=", ""),
    ("tag!=shop", "c"),
    ("days_left<30", "a"),
    ("days_left>=30", "b"),
    ("days_left=", "c"),
    ("days_left!=10", "bc"),
    ("not_after<2999-01-01", "ab"),
    ("issuer~test and days_left>30", "b"),
    ("issuer!~test", "c"),
    ("key='ECDSA P-256'", "ab"),
    ("status=ready,not-configured", "abc"),
    ("location~%", ""),
    ("location~_", ""),
    ("names~'; drop table endpoints; --'", ""),
]


def test_filters(inventory: Inventory) -> None:
    """Every kind of column can be asked for, and signs of SQL are only signs."""
    inventory.endpoint("a.test:443", profile="p", target="web", tags=["shop"], names=["a.test"])
    inventory.endpoint(
        "b.test:443",
        profile="p",
        target="web",
        tags=["shop", "x"],
        names=["b.test", "www.b.test"],
        server={"kind": "nginx"},
    )
    inventory.endpoint("c.test:443", tags=["y"])
    inventory.certificate("a.test:443", issue("a.test", days=10.5))
    inventory.certificate("b.test:443", issue("b.test", "www.b.test", days=90))

    found = {text: "".join(location[0] for location in locations(text)) for text, _ in FILTERS}

    assert found == dict(FILTERS)
    for text, expected in FILTERS:
        clauses = query.parse_filter(text)
        assert query.count(clauses) == len(expected)
        assert [one for _, one in query.locations(clauses)] == locations(text)


def test_who_is_at_a_step_is_found_among_those_that_work_or_have_failed(
    inventory: Inventory,
) -> None:
    """In a job of thousands: which of them wait for the CA?"""
    for name in "abcd":
        inventory.endpoint(f"{name}.test:443", profile="p", target="web")
    for name, status in (("a", "in-progress"), ("b", "automation-failed"), ("c", "cancelled")):
        inventory.request(f"{name}.test:443", status=status)

    first = "step='ACME account created'"
    assert locations(first) == ["a.test:443", "b.test:443"]
    assert locations("step~account", limit=1) == ["a.test:443"]
    assert locations(first, "status=automation-failed") == ["b.test:443"]
    assert locations("step='Domain validated'", limit=5) == []
    assert locations("step!='ACME account created'") == ["c.test:443", "d.test:443"]
    assert locations("step=", limit=1) == ["c.test:443"]
    assert query.count(query.parse_filter(first)) == 2


def test_sorting_puts_what_is_empty_last(inventory: Inventory) -> None:
    """Those that end first are looked for, not those without a certificate."""
    for name, days in (("a", 50), ("b", 5), ("c", None), ("d", 20)):
        inventory.endpoint(f"{name}.test:443")
        if days:
            inventory.certificate(f"{name}.test:443", issue(f"{name}.test", days=days + 0.5))

    def order(sort: str) -> str:
        return "".join(location[0] for location in locations(sort=sort))

    assert order("days_left") == "bdac"
    assert order("-days_left") == "adbc"
    assert order("-location") == "dcba"
    assert order("expires") == "bdac"
    assert locations(sort="days_left", limit=2) == ["b.test:443", "d.test:443"]
    assert [row.location for row in query.find(after="b.test:443")] == ["c.test:443", "d.test:443"]
    with pytest.raises(InvalidRequest, match="cannot be sorted"):
        order("location; drop table endpoints")


@pytest.mark.parametrize("near", [3, 2000])
def test_a_page_of_a_derived_status_is_the_beginning_of_the_whole_list(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, near: int
) -> None:
    """Found among the first rows of the order or among all: nobody may notice which."""
    monkeypatch.setattr(query, "_NEAR", near)
    for n in range(9):
        inventory.endpoint(f"e{n}.test:443", profile="p", target="web")
        if n % 3 == 0:
            inventory.certificate(f"e{n}.test:443", issue(f"e{n}.test", days=n - 5))

    for text in ("status=ready", "status!=ready", "status=ready,automation-at-risk", "risks="):
        for sort in ("location", "-location", "days_left", "-days_left", "status", "-status"):
            whole = locations(text, sort=sort)
            paged: list[str] = []
            while page := query.find(
                query.parse_filter(text), sort=sort, limit=2, after=paged[-1] if paged else ""
            ):
                paged += [row.location for row in page]
            assert paged == whole, (text, sort)


def test_what_lists_sort_by_follows_what_it_is_taken_from(inventory: Inventory) -> None:
    """A column that is kept for its index must not tell what was true once."""
    inventory.connector("other", "ca-vault")
    for name, profile in (("a", "p"), ("b", "q")):
        inventory.profile("q", ca="other")
        inventory.endpoint(f"{name}.test:443", profile=profile, target="web", tags=[f"{name}s"])
        inventory.certificate(f"{name}.test:443", issue(f"{name}.test"))
    reused = locations("findings=key-reused")
    before = locations(sort="ca"), locations(sort="tags"), locations(sort="lifetime_days")

    inventory.profile("p", ca="other", workflow="delivery")
    inventory.profile("q", ca="ca")
    inventory.endpoint("a.test:443", profile="p", target="web", tags=["z"])
    inventory.certificate("b.test:443", issue("b.test", days=5, key=OTHER_KEY))

    a_first, b_first = ["a.test:443", "b.test:443"], ["b.test:443", "a.test:443"]
    assert (reused, before) == (a_first, (a_first,) * 3)
    assert locations("findings=key-reused") == []
    assert only("a.test:443").security_findings == ()
    for sort in ("ca", "tags", "lifetime_days", "-workflow"):
        assert locations(sort=sort) == b_first, sort


def test_every_column_can_be_filtered_and_sorted(inventory: Inventory) -> None:
    """A column that cannot be asked for is found out here, not by a user."""
    inventory.endpoint("a.test:443")

    for column in FIELDS:
        assert [*locations(f"{column}="), *locations(f"{column}!=")] == ["a.test:443"], column
        if column not in UNSORTED:
            assert locations(sort=column) == ["a.test:443"]


def test_system_views(inventory: Inventory) -> None:
    """Each view is a question that people have."""
    statuses = {
        "failed.test:443": Status.AUTOMATION_FAILED,
        "person.test:443": Status.ACTION_REQUIRED,
        "later.test:443": Status.AUTOMATION_SCHEDULED,
        "queued.test:443": Status.AUTOMATION_REQUESTED,
        "running.test:443": Status.IN_PROGRESS,
        "done.test:443": Status.AUTOMATION_SUCCESSFUL,
    }
    for name, status in statuses.items():
        inventory.endpoint(name, profile="p", target="web")
        inventory.request(name, status=status, ended_at=NOW)
    inventory.certificate("done.test:443", issue("done.test", days=3))
    inventory.endpoint("new.test:443")

    found = {
        name: {one.split(".")[0] for one in locations(*view.filters, sort=view.sort)}
        for name, view in SYSTEM_VIEWS.items()
    }

    assert found == {
        "needs-attention": {"failed", "person"},
        "scheduled": {"later"},
        "in-progress": {"queued", "running"},
        "expiring": {"done"},
        "failed": {"failed", "person"},
        "unmanaged": {"new"},
    }


def test_an_unknown_location_is_told_with_one_that_is_alike(inventory: Inventory) -> None:
    """Mostly the port was forgotten."""
    inventory.endpoint("www.example.test:443")

    with pytest.raises(NotFound, match="no endpoint www") as caught:
        endpoint_detail.get("www.example.test")

    assert "www.example.test:443" in caught.value.remedy


def test_the_page_of_an_endpoint(inventory: Inventory) -> None:
    """All that is known beside its row."""
    inventory.endpoint("a.test:443", profile="p", target="web", address="127.0.0.1:1", sni="a.test")
    chain = issue("a.test")
    inventory.certificate("a.test:443", chain)

    found = endpoint_detail.get("A.test:443")

    assert found.addresses == ("127.0.0.1:1",)
    assert found.sni == "a.test"
    assert found.settings is not None
    assert found.settings["ca"] == "ca"
    assert found.chain_pem == chain.text


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (timedelta(hours=4), ""),
        (timedelta(hours=12), "a"),
        (timedelta(hours=23), "ab"),
        (timedelta(days=1), "ab"),
        (timedelta(hours=25), "ab"),
        (timedelta(hours=36), "abc"),
    ],
)
def test_what_ends_within_hours(inventory: Inventory, span: timedelta, expected: str) -> None:
    """The moment counts, not the whole days that the list shows."""
    for name, hours in (("a", 6), ("b", 20), ("c", 30), ("d", 60)):
        inventory.endpoint(f"{name}.test:443")
        inventory.certificate(f"{name}.test:443", issue(f"{name}.test", days=hours / 24))

    found = query.find(selection(expires_within=span).view.clauses())

    assert "".join(row.location[0] for row in found) == expected


def test_hours_cannot_be_kept(inventory: Inventory) -> None:
    """A view that was saved with a moment would show nothing but what has ended by then."""
    kept = selection(expires_within=timedelta(days=30), is_kept=True)
    assert kept.view.filters == ("days_left<30",)

    with pytest.raises(InvalidRequest, match="whole days"):
        selection(expires_within=timedelta(hours=36), is_kept=True)
