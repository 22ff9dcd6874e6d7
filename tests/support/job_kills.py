"""Stop a bulk job's worker exactly before a row of the job is written, as :mod:`kill_points` does.

Each write is named by its table and what it changes, so that a clean run can
tell which there are. Jobs are caught apart from each other, many at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg

from tests.support.process import wait_for

_SPACE = 4712
_TABLES = ("jobs", "job_shards", "requests", "outbox")

_SETUP = f"""
create table if not exists job_kill (
  job_id uuid primary key, number serial, write text not null default '');
create table if not exists job_write (job_id uuid not null, write text not null);
create or replace function wait_at_job_kill() returns trigger language plpgsql as $$
declare
  now jsonb := to_jsonb(new);
  job uuid := coalesce(case tg_table_name when 'jobs' then now ->> 'id'
    when 'outbox' then now -> 'payload' ->> 'job_id' else now ->> 'job_id' end)::uuid;
  point job_kill;
  write text := tg_table_name;
begin
  select * into point from job_kill where job_id = job;
  if not found then
    return new;
  end if;
  if tg_table_name = 'outbox' then
    if new.request_id is not null then
      return new;
    end if;
    write := write || ' ' || new.event;
  else
    select write || ': ' || coalesce(string_agg(each.key, ', ' order by each.key), '') into write
      from jsonb_each(now) each where each.value is distinct from to_jsonb(old) -> each.key;
    if tg_table_name = 'requests' then
      -- Of its rows only the one that tells which flow run Prefect has made for it.
      if write not like '%flow_run_id%' then
        return new;
      end if;
      write := 'requests: flow_run_id';
    end if;
  end if;
  if point.write = '' then
    insert into job_write values (job, write);
  elsif point.write = write then
    perform pg_advisory_xact_lock({_SPACE}, point.number);
  end if;
  return new;
end $$;
"""


def install(database_url: str) -> None:
    """Put the triggers into the database; they do nothing until a job is watched or caught."""
    with psycopg.connect(database_url) as connection:
        connection.execute(_SETUP)
        for table in _TABLES:
            when = "insert" if table == "outbox" else "update"
            connection.execute(
                f"create or replace trigger wait_at_job_kill before {when} on {table}"
                " for each row execute function wait_at_job_kill()"
            )


def remove(database_url: str) -> None:
    """Take them out again."""
    with psycopg.connect(database_url) as connection:
        connection.execute("drop function if exists wait_at_job_kill cascade")
        connection.execute("drop table if exists job_kill, job_write")


def watch(database_url: str, job_id: UUID) -> None:
    """Note every write of a job from now on."""
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into job_kill (job_id) values (%s)", [job_id])


def writes(database_url: str, job_id: UUID) -> set[str]:
    """Return the writes of a job that was watched."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("select write from job_write where job_id = %s", [job_id])
        return {write for (write,) in rows}


@contextmanager
def catching(database_url: str, job_id: UUID, write: str) -> Iterator[Callable[[], None]]:
    """Make whoever is about to make *write* of the job wait while the block runs.

    The value returns once somebody does.
    """
    with psycopg.connect(database_url, autocommit=True) as holder:
        row = holder.execute(
            "insert into job_kill (job_id, write) values (%s, %s) returning number",
            [job_id, write],
        ).fetchone()
        assert row is not None
        holder.execute("select pg_advisory_lock(%s, %s)", [_SPACE, *row])
        query = (
            "select count(*) from pg_locks where locktype = 'advisory' and not granted"
            " and classid = %s and objid = %s"
        )
        try:
            yield lambda: wait_for(
                lambda: holder.execute(query, [_SPACE, *row]).fetchone() != (0,),
                f"a process comes to {write}",
                within=60,
            )
        finally:
            holder.execute("delete from job_kill where number = %s", row)
