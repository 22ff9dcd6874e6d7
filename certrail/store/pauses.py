"""Budgets that pause because their CA asked to be left alone, for all workers to see."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import insert

from certrail.jobs.pauses import Pause
from certrail.store.database import statement, transaction
from certrail.store.schema import budget_pauses as table
from certrail.store.schema import requests
from certrail.tracker import ACTIVE

_LEFT = (table.c.until - func.clock_timestamp()).label("left")


def note(budget: str, wait: timedelta, why: str) -> Pause:
    """Let a budget pause for *wait* from now; one that already pauses longer does so as before."""
    made = insert(table).values(budget=budget, until=func.clock_timestamp() + wait, why=why)
    with transaction() as connection:
        row = connection.execute(
            made.on_conflict_do_update(
                index_elements=["budget"],
                set_={"until": made.excluded.until, "why": made.excluded.why},
                where=table.c.until < made.excluded.until,
            ).returning(table, _LEFT)
        ).first()
        if row is None:
            row = connection.execute(select(table, _LEFT).where(table.c.budget == budget)).one()
    return Pause(row.budget, row.until, row.why, row.left)


def present() -> list[Pause]:
    """Return the budgets that pause now."""
    query = select(table, _LEFT).where(table.c.until > func.now()).order_by(table.c.budget)
    with statement() as connection:
        return [
            Pause(row.budget, row.until, row.why, row.left) for row in connection.execute(query)
        ]


def of_job(job_id: UUID) -> list[Pause]:
    """Return the budgets that pause now and that endpoints of a job are still to draw on."""
    ca = requests.c.plan["ca"]["name"].astext
    waits = select(requests.c.id).where(
        requests.c.job_id == job_id,
        requests.c.status.in_(ACTIVE),
        table.c.budget == literal("ca:") + ca,
    )
    query = (
        select(table, _LEFT)
        .where(table.c.until > func.now(), waits.exists())
        .order_by(table.c.budget)
    )
    with statement() as connection:
        return [
            Pause(row.budget, row.until, row.why, row.left) for row in connection.execute(query)
        ]
