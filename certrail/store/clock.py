"""Leases and ages by the database's clock, also when that clock is set right meanwhile.

Set forward, every lease seems to be over until its holder renews it; set back,
the lease of a worker that died would last as long as the clock was wrong. So no
lease is granted for longer than :data:`LONGEST`, and one that ends later than
that is the present's for nobody. Both ways somebody may take over what another
one still runs: what keeps the two apart is the owner in each of their writes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_

LONGEST = timedelta(minutes=5)


def lease(wanted: timedelta) -> ColumnElement[Any]:
    """Return when a lease that is granted now ends."""
    return func.now() + min(wanted, LONGEST)


def is_held(until: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether a lease is somebody's; never null."""
    return func.coalesce(and_(until > func.now(), until <= func.now() + LONGEST), False)


def is_free(until: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether there is no lease, or none that counts."""
    return or_(until.is_(None), is_over(until))


def is_over(until: ColumnElement[Any]) -> ColumnElement[bool]:
    """Whether there was a lease, and it counts no more."""
    return or_(until < func.now(), until > func.now() + LONGEST)


def is_older(moment: ColumnElement[Any], age: timedelta) -> ColumnElement[bool]:
    """Whether *moment* is longer ago than *age*, or is of a future that the clock has left."""
    # What was written since this transaction began is of a future too, though a near one.
    return or_(moment < func.now() - age, moment > func.now() + LONGEST)
