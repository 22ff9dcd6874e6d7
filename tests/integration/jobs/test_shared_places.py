"""The shards of a job draw on one number of places, whatever workers run them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import chosen, estate
from tests.support.process import running

# What living workers have of a job's places: by shard, with its size and whether it is over.
_PLACES = """
  select s.size, case when s.lease_until > now() then s.places else 0 end as places,
    not exists (
      select from job_members m join requests r on r.id = m.request_id
      where m.job_id = s.job_id and m.shard = s.number and r.ended_at is null) as is_over
  from job_shards s join jobs j on j.id = s.job_id where j.name = %s
"""
_SPANS = """
  select s.size, r.started_at, r.ended_at from requests r
  join jobs j on j.id = r.job_id join job_members m on m.request_id = r.id
  join job_shards s on s.job_id = j.id and s.number = m.shard where j.name = %s
"""


Look = dict[int, tuple[int, bool]]


@contextmanager
def looking(database_url: str, job: str) -> Iterator[list[Look]]:
    """Look again and again at the places of a job's shards while the block runs.

    Each look tells, by the size of the shard, its places and whether it is over.
    """
    seen: list[Look] = []
    over = threading.Event()

    def look() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not over.wait(0.1):
                rows = connection.execute(_PLACES, [job]).fetchall()
                seen.append({size: (places, is_over) for size, places, is_over in rows})

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def at_once(spans: list[tuple[Any, ...]]) -> int:
    """Return how many endpoints were at work at the same time."""
    return max(
        (sum(begin <= moment < end for _, begin, end in spans) for _, moment, _ in spans), default=0
    )


def test_what_a_small_shard_leaves_a_larger_one_uses(shell: Shell, tmp_path: Path) -> None:
    """Two workers, four places: both shards share them, and the one that is left has all.

    How many each has at first depends on which of them begins earlier; the unit tests have that.
    """
    prefix, concurrency = "shared", 4
    branch, name = f"{prefix}-branch", f"{prefix}-places"
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]
    with estate(tmp_path / "e", prefix, 15) as endpoints:
        whole = endpoints.configuration(install_timeout_seconds=300)
        for number, endpoint in enumerate(whole["endpoints"]):
            if number < 3 or number == 14:
                endpoint["executor"] = branch
            else:
                endpoint["server"]["test"] = ["sleep", "2"]
        *locations, first = endpoints.locations()
        shell("apply", "-f", str(endpoints.write(whole)))
        with (
            running(
                [*command, "--name", branch, "--queue", branch],
                log=tmp_path / "agent.log",
                env=shell.stack.env,
                # Those of other tests may be silent by now: exit code 1.
                ready=lambda: branch in shell.stack.cli("executor", "list").stdout,
                within=90,
            ),
            looking(shell.stack.database_url, name) as seen,
        ):
            # A worker loads the flows with its first run; the other one has done that before.
            shell("request", "start", first, "--wait")
            shell(
                "job", "start", name, "--locations-file", str(chosen(locations, tmp_path)),
                "--concurrency", str(concurrency),
            )  # fmt: skip
            told = shell.wait_for_status(name, "completed", within=240)
    with psycopg.connect(shell.stack.database_url) as connection:
        spans = connection.execute(_SPANS, [name]).fetchall()
    small_over = max(end for size, _, end in spans if size == 3)
    late = [one for one in spans if one[0] == 11 and one[2] > small_over]

    assert told["counts"]["successful"] == 14
    assert at_once(spans) <= concurrency
    assert max(sum(places for places, _ in look.values()) for look in seen) == concurrency
    looks = [one for one, before in zip(seen, [{}, *seen[:-1]], strict=True) if one != before]
    assert max(look[11][0] for look in seen if look and look[3][1]) == concurrency, looks
    assert at_once(late) > concurrency // 2
    must_agree(shell.stack, job=name)
    shell("executor", "forget", branch)
