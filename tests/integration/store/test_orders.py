"""Lists sorted by any column, both ways: in the order of what is shown, empty values last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import insert

from certrail.store import inventory as query
from certrail.store.database import transaction
from certrail.store.inventory_query import FIELDS, UNSORTED
from certrail.store.schema import jobs
from tests.integration.store.conftest import Inventory, issue

NOW = datetime.now(UTC)
COLUMNS = [name for name in FIELDS if name not in UNSORTED]
# Neither the order in which they are made nor its reverse, for anything that depends on it.
NUMBERS = (4, 1, 7, 3, 0, 6, 2, 5)


@pytest.fixture
def filled(inventory: Inventory) -> Inventory:
    """Endpoints that differ in every column; one has nothing but its location."""
    inventory.connector("other-ca", "ca-command")
    inventory.connector("other-web", "host-ssh")
    inventory.connector("box", "appliance-caddy")
    inventory.profile("q", ca="other-ca", validation={"method": "dns-01", "dns": "ns"})
    inventory.profile("box", workflow="appliance")
    for number in NUMBERS:
        location, name = f"h{(number * 3) % 8}.test:{443 + number}", f"n{(number * 5) % 8}.test"
        inventory.endpoint(
            location,
            names=[name],
            tags=[f"t{(number * 7) % 8}"],
            profile="box" if number == 7 else "pq"[number % 2],
            target="box" if number == 7 else ("web", "other-web")[number % 2],
            server={} if number == 7 else {"kind": ("nginx", "apache")[number % 2], "site": name},
        )
        key: dict[str, Any] = {"key": rsa.generate_private_key(65537, 2048)} if number % 2 else {}
        inventory.certificate(
            location, issue(name, days=20 + number * 2, issuer=f"CA {(number * 3) % 8}", **key)
        )
        with transaction() as connection:
            job = connection.execute(
                insert(jobs)
                .values(name=f"job-{(number * 5) % 8}", action="renew", status="completed")
                .returning(jobs.c.id)
            ).scalar_one()
        inventory.request(
            location, status=("automation-failed", "cancelled")[number % 2], job_id=job
        )
        inventory.set(
            location,
            last_success_at=NOW - timedelta(days=(number * 3) % 8),
            next_renewal_at=NOW + timedelta(days=1 + (number * 5) % 8),
        )
    inventory.endpoint("bare.test:443")
    return inventory


def shown(row: query.Endpoint, column: str) -> Any:
    """Return what a row shows in a column, as people would order it."""
    value = getattr(row, column)
    if isinstance(value, tuple):
        return " ".join(value)
    return value.lower() if isinstance(value, str) else value


def test_every_column_orders_the_list(filled: Inventory) -> None:
    """Somebody who sorts by a column looks at one end of the list."""
    for column in COLUMNS:
        for sort in (column, f"-{column}"):
            values = [shown(row, column) for row in query.find(sort=sort)]

            there = [value for value in values if value not in (None, "")]
            assert len(values) == len(NUMBERS) + 1, sort
            assert len(set(there)) > 1, f"{column}: all are alike, so that no order is seen"
            assert values[: len(there)] == there, f"{sort}: empty ones come last"
            assert there == sorted(there, reverse=sort.startswith("-")), sort


def test_every_order_goes_on_behind_the_last_page(filled: Inventory) -> None:
    """Page by page it is the same list, also where values are equal or empty."""
    for column in COLUMNS:
        for sort in (column, f"-{column}"):
            whole = [row.location for row in query.find(sort=sort)]
            paged: list[str] = []
            while page := query.find(sort=sort, limit=4, after=paged[-1] if paged else ""):
                paged += [row.location for row in page]

            assert paged == whole, sort
