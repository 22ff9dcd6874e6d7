"""Locations of objects are in lower case, as everything looks for them.

Revision: 0018
"""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_OBJECTS = "select id, location, server, also_on from endpoints where location like '%/%' order by 2"
_RENAMED = """
update endpoints set location = :location, host = :location, server = cast(:server as jsonb),
  also_on = cast(:also_on as jsonb), updated_at = now() where id = :id
"""
_MEMBERS = """
update job_members m set location = :location where location = :before
  and not exists (select from job_members o where o.job_id = m.job_id and o.location = :location)
"""
_NOTED = """
insert into audit (actor, action, object, detail)
values ('certrail upgrade', 'endpoint.changed', :location, cast(:detail as jsonb))
"""


def upgrade() -> None:
    connection = op.get_bind()
    objects = connection.execute(sa.text(_OBJECTS)).all()
    taken = {row.location for row in objects}
    for row in objects:
        if row.location == row.location.lower():
            continue
        location = _free(row.location.lower(), taken)
        taken.add(location)
        object_ = row.location.partition("/")[2]
        further = [
            {**place, "server": _named(place["server"], object_)} if place.get("server") else place
            for place in row.also_on
        ]
        values = {"location": location, "before": row.location}
        connection.execute(
            sa.text(_RENAMED),
            {
                "id": row.id,
                "location": location,
                "server": json.dumps(_named(row.server, object_)),
                "also_on": json.dumps(further),
            },
        )
        connection.execute(sa.text(_MEMBERS), values)
        detail = json.dumps({"fields": ["location"], "before": row.location})
        connection.execute(sa.text(_NOTED), {"location": location, "detail": detail})


def _named(server: dict[str, Any], object_: str) -> dict[str, Any]:
    # What is stored or served there is told apart by case.
    return server if server.get("site") or server.get("kind") else {**server, "site": object_}


def _free(wanted: str, taken: set[str]) -> str:
    """Return *wanted*, with a number behind it where another endpoint has that location."""
    found, number = wanted, 1
    while found in taken:
        number += 1
        found = f"{wanted}-{number}"
    return found
