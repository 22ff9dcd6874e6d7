"""Stop a command that makes or changes a bulk job exactly before one of the rows that it writes.

As :mod:`job_kills` for a job's worker: the command is caught by its own write,
by the job's name, and killed there. A clean run tells which writes there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from tests.support.process import wait_for

_SPACE = 4713
_TABLES = ("jobs", "job_members", "job_shards", "requests", "steps", "outbox", "audit")

_SETUP = f"""
create table if not exists command_kill (
  job text primary key, number serial, write text not null default '');
create table if not exists command_write (job text not null, number serial, write text not null);
create or replace function wait_at_command_kill() returns trigger language plpgsql as $$
declare
  now jsonb := to_jsonb(new);
  job_name text := case tg_table_name when 'jobs' then now ->> 'name'
    when 'audit' then now ->> 'object'
    when 'outbox' then now -> 'payload' ->> 'job_name'
    when 'steps' then (select j.name from requests r join jobs j on j.id = r.job_id
      where r.id = (now ->> 'request_id')::uuid)
    else (select name from jobs where id = (now ->> 'job_id')::uuid) end;
  point command_kill;
  what text := lower(tg_op) || ' ' || tg_table_name;
begin
  select * into point from command_kill where job = job_name;
  if not found then
    return new;
  end if;
  if tg_op = 'UPDATE' then
    select what || ': ' || coalesce(string_agg(each.key, ', ' order by each.key), '') into what
      from jsonb_each(now) each where each.value is distinct from to_jsonb(old) -> each.key;
  end if;
  if point.write = '' then
    insert into command_write (job, write) values (job_name, what);
  elsif point.write = what then
    perform pg_advisory_xact_lock({_SPACE}, point.number);
  end if;
  return new;
end $$;
"""


@contextmanager
def installed(database_url: str) -> Iterator[None]:
    """Have the triggers in the database; they do nothing to jobs that nobody watches."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(_SETUP)
        for table in _TABLES:
            connection.execute(
                f"create or replace trigger wait_at_command_kill before insert or update on {table}"
                " for each row execute function wait_at_command_kill()"
            )
    try:
        yield
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("drop function if exists wait_at_command_kill cascade")
            connection.execute("drop table if exists command_kill, command_write")


def watch(database_url: str, job: str) -> None:
    """Note every write about a job from now on, and forget what was noted."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into command_kill (job) values (%s) on conflict do nothing", [job]
        )
        connection.execute("delete from command_write where job = %s", [job])


def writes(database_url: str, job: str) -> list[str]:
    """Return the writes about a job that was watched, in their order, each once."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select write from command_write where job = %s order by number", [job]
        )
        return list(dict.fromkeys(write for (write,) in rows))


@contextmanager
def catching(database_url: str, job: str, write: str) -> Iterator[Callable[[], int]]:
    """Make whoever is about to make *write* about the job wait while the block runs.

    The value returns once somebody does. After the block the transaction that was
    caught is over.
    """
    with psycopg.connect(database_url, autocommit=True) as holder:
        row = holder.execute(
            "insert into command_kill (job, write) values (%s, %s) returning number", [job, write]
        ).fetchone()
        assert row is not None
        holder.execute("select pg_advisory_lock(%s, %s)", [_SPACE, *row])
        caught: list[int] = []

        def is_caught() -> bool:
            caught[:] = [
                pid
                for (pid,) in holder.execute(
                    "select pid from pg_locks where locktype = 'advisory' and not granted"
                    " and classid = %s and objid = %s",
                    [_SPACE, *row],
                )
            ]
            return bool(caught)

        def wait() -> int:
            wait_for(is_caught, f"a command comes to {write}", within=60)
            return caught[0]

        try:
            yield wait
        finally:
            holder.execute("select pg_advisory_unlock(%s, %s)", [_SPACE, *row])
            holder.execute("delete from command_kill where number = %s", row)
        wait_for(
            lambda: (
                holder.execute(
                    "select count(*) from pg_stat_activity where pid = any(%s)", [caught]
                ).fetchone()
                == (0,)
            ),
            "the transaction that was caught is over",
        )
