"""Stop a process exactly before a journal row is committed, and kill it there.

A trigger in the inventory database waits for a lock that the test holds. So
no hook for tests is in the product: the process is caught by its own write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from tests.support.process import wait_for

_LOCK = 4711

_TRIGGER = f"""
create table if not exists kill_point (action text not null, phase text not null);
create or replace function wait_at_kill_point() returns trigger language plpgsql as $$
begin
  if exists (
    select 1 from kill_point
    where action = new.action
      and phase = case when tg_op = 'INSERT' then 'intent' else 'outcome' end
  ) then
    perform pg_advisory_xact_lock({_LOCK});
  end if;
  return new;
end $$;
create or replace trigger wait_at_kill_point before insert or update on journal
  for each row execute function wait_at_kill_point();
"""


@dataclass(frozen=True)
class KillPoint:
    """Before the row with the intent, or before the outcome, of an effect."""

    action: str
    phase: str

    def __str__(self) -> str:
        return f"{self.action} {self.phase}"


def install(database_url: str) -> None:
    """Put the trigger into the database; it does nothing until a point is armed. Twice is quiet."""
    with psycopg.connect(database_url) as connection:
        connection.execute(_TRIGGER)


@contextmanager
def armed(database_url: str, point: KillPoint) -> Iterator[None]:
    """Make whoever comes to *point* wait there while the block runs."""
    with psycopg.connect(database_url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", [_LOCK])
        holder.execute("insert into kill_point values (%s, %s)", [point.action, point.phase])
        try:
            yield
        finally:
            holder.execute("delete from kill_point")
            holder.execute("select pg_advisory_unlock(%s)", [_LOCK])


def wait_until_caught(database_url: str, point: KillPoint, number: int = 1) -> None:
    """Return once so many processes wait at the armed point."""
    query = (
        "select count(*) from pg_locks where locktype = 'advisory' and not granted and objid = %s"
    )
    with psycopg.connect(database_url, autocommit=True) as connection:

        def caught() -> bool:
            row = connection.execute(query, [_LOCK]).fetchone()
            return bool(row and row[0] >= number)

        wait_for(caught, f"a process comes to {point}", within=60)
