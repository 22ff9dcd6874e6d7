"""Intent before effect, outcome after.

Every change to the outside world goes through :meth:`Journal.effect`: the
intent row is committed before the block runs, the outcome when the block
records one. After a crash the row has an intent and no outcome, and the block
asks the other side what happened before it does anything again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, func, select, text, update

from certrail import log
from certrail.store.database import statement, transaction
from certrail.store.schema import journal as table

# As text: SQLAlchemy compiles an insert with ON CONFLICT anew each time.
_BEGIN = text(
    "insert into journal (request_id, action, key, intent, run)"
    " values (:request_id, :action, :key, :intent, :run) on conflict do nothing returning id"
).bindparams(bindparam("intent", type_=table.c.intent.type))
_THIS = (
    (table.c.request_id == bindparam("request_id"))
    & (table.c.action == bindparam("action"))
    & (table.c.key == bindparam("key"))
)
_FIND = select(table.c.id, table.c.intent, table.c.outcome).where(_THIS)
_RECORD = (
    update(table)
    .where(table.c.id == bindparam("row_id"))
    .values(outcome=bindparam("result", type_=table.c.outcome.type), outcome_at=func.now())
)


class Effect:
    """One effect, between its intent and its outcome.

    Attributes:
        intent: what was written before, maybe by an earlier run.
        outcome: what was recorded after, None if nothing was.
        is_repeated: an earlier run wrote the intent, so the effect may have happened.
    """

    def __init__(
        self, row_id: int, intent: dict[str, Any], outcome: dict[str, Any] | None, repeated: bool
    ) -> None:
        self._row_id = row_id
        self.intent = intent
        self.outcome = outcome
        self.is_repeated = repeated

    def record(self, outcome: Mapping[str, Any], *also: Callable[[Connection], object]) -> None:
        """Commit *outcome*; the effect counts as done from here on.

        What the effect yielded is stored by *also* in the same transaction.
        """
        # An outcome alone can be lost to a crash of the database: the next run finds the
        # intent, and finds out what came of it, as after any other crash at this point.
        with transaction() if also else statement(durable=False) as connection:
            for store in also:
                store(connection)
            connection.execute(_RECORD, {"row_id": self._row_id, "result": dict(outcome)})
        self.outcome = dict(outcome)


class Journal:
    """The journal of one request in one run."""

    def __init__(self, request_id: UUID, run: int, *, place: int = 0) -> None:
        """*place* is one of several that the same is done in; its keys are its own."""
        self.request_id = request_id
        self.run = run
        self._suffix = f"@{place}" if place else ""

    @contextmanager
    def effect(
        self, action: str, key: str, intent: Mapping[str, Any] | None = None
    ) -> Iterator[Effect]:
        """Write the intent for *action* on *key*, or find the one that is there.

        The block looks at ``outcome``: None means it has to find out and do;
        otherwise the effect is finished and nothing may be done again.
        """
        key += self._suffix
        with statement() as connection:
            this = {"request_id": self.request_id, "action": action, "key": key}
            row = connection.execute(
                _BEGIN, {**this, "intent": dict(intent or {}), "run": self.run}
            ).first()
            if row is not None:
                effect = Effect(row.id, dict(intent or {}), None, repeated=False)
            else:
                found = connection.execute(_FIND, this).one()
                effect = Effect(found.id, found.intent, found.outcome, repeated=True)
        if effect.outcome is None:
            log.logger.debug("%s intent request=%s key=%s", action, self.request_id, key)
        yield effect

    def has(self, action: str, key: str) -> bool:
        """Return whether *action* on *key* was begun, by whatever run."""
        with statement() as connection:
            this = {"request_id": self.request_id, "action": action, "key": key + self._suffix}
            return connection.execute(_FIND, this).first() is not None

    def forget(self, connection: Connection, action: str, key: str) -> None:
        """Drop an effect that was undone, in the caller's transaction: the next run repeats it."""
        connection.execute(
            table.delete().where(
                table.c.request_id == self.request_id,
                table.c.action == action,
                table.c.key == key + self._suffix,
            )
        )

    def superseded(self, action: str, why: str) -> None:
        """Note of every effect of *action* without outcome that what comes now takes its place."""
        with statement(durable=False) as connection:
            connection.execute(
                update(table)
                .where(
                    table.c.request_id == self.request_id,
                    table.c.action == action,
                    table.c.outcome.is_(None),
                )
                .values(outcome={"superseded": why}, outcome_at=func.now())
            )

    def intents(self, action: str) -> list[dict[str, Any]]:
        """Return the intents of every effect of *action*, finished or not, oldest first."""
        with statement() as connection:
            rows = connection.execute(
                select(table.c.intent)
                .where(table.c.request_id == self.request_id, table.c.action == action)
                .order_by(table.c.id)
            )
            return [row.intent for row in rows]

    def unfinished(self, action: str) -> list[tuple[str, dict[str, Any]]]:
        """Return key and intent of every effect of *action* without outcome, oldest first."""
        with statement() as connection:
            rows = connection.execute(
                select(table.c.key, table.c.intent)
                .where(
                    table.c.request_id == self.request_id,
                    table.c.action == action,
                    table.c.outcome.is_(None),
                )
                .order_by(table.c.id)
            )
            return [(row.key, row.intent) for row in rows]
