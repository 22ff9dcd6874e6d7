"""Jobs whose worker dies, or whose database is away: nothing is lost and nothing is doubled."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate
from tests.support.hurry import hurried
from tests.support.process import wait_for


def test_a_killed_worker_loses_and_doubles_nothing(shell: Shell, endpoints: Estate) -> None:
    """Another worker goes on with what is left, by the lease, without anybody's help."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"killed-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "3")
    shell.wait_until(name, "successful endpoints", "successful", 2)

    os.kill(shell.stack.child("deployments.worker"), signal.SIGKILL)
    with hurried(shell.api, "reconcile"):
        told = shell.wait_for_status(name, "completed", within=240)

    assert told["counts"]["successful"] == 8
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    must_agree(shell.stack, job=name)


def test_a_paused_job_survives_a_restart_of_its_worker(shell: Shell, endpoints: Estate) -> None:
    """A pause may last for days."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"rests-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "2")
    shell.wait_until(name, "endpoints in progress", "in_progress", 1)
    shell("job", "pause", name)
    shell.wait_for_status(name, "paused")

    os.kill(shell.stack.child("deployments.worker"), signal.SIGKILL)
    told = shell.json("job", "resume", name, "--wait")

    assert told["counts"]["successful"] == 8
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    must_agree(shell.stack, job=name)


def test_a_pause_that_is_taken_back_before_it_is_noted_ends_no_job(
    shell: Shell, endpoints: Estate
) -> None:
    """All that ran is over, and somebody resumes just before the job would rest."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"resumed-{endpoints.prefix}"
    shell("job", "start", name, "--filter", f"tag={endpoints.prefix}", "--concurrency", "2")
    shell.wait_until(name, "endpoints in progress", "in_progress", 1)
    with _resting_is_not_noted(shell.stack.database_url) as tried:
        shell("job", "pause", name)
        wait_for(lambda: tried() >= 1, "the job is about to rest", within=120)
        told = shell.json("job", "resume", name, "--wait")

    assert told["counts"]["successful"] == 8
    assert endpoints.issued() == dict.fromkeys(endpoints.names, 1)
    must_agree(shell.stack, job=name)


def test_an_approval_survives_the_death_of_its_worker(shell: Shell, endpoints: Estate) -> None:
    """It waits in nobody's memory: approved after a crash, it goes on with the same run."""
    whole = endpoints.configuration(approval={"by": "anyone"})
    shell("apply", "-f", str(endpoints.write(whole)))
    location = whole["endpoints"][0]["location"]
    asked = shell.json("request", "start", location)
    assert asked["status"] == "approval-pending"

    os.kill(shell.stack.child("deployments.worker"), signal.SIGKILL)
    assert shell.json("request", "show", location)["status"] == "approval-pending"
    shell("request", "approve", asked["request_id"])

    def status() -> str:
        return str(shell.json("request", "show", asked["request_id"])["status"])

    wait_for(lambda: status() == "automation-successful", "approved, done", within=240)
    done = shell.json("request", "show", asked["request_id"])
    assert (done["flow_run_id"], done["run_count"]) == (asked["flow_run_id"], 1)
    assert endpoints.issued()[endpoints.names[0]] == 1


@contextmanager
def _resting_is_not_noted(database_url: str) -> Iterator[Callable[[], int]]:
    """Have no job found to be pausing when it would rest, as if it were resumed just then.

    The value tells how often one would have rested.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            """
            create sequence resting;
            create function not_resting() returns trigger language plpgsql as $$
            begin
              perform nextval('resting');
              return null;
            end $$;
            create trigger not_resting before update on jobs for each row
              when (new.status = 'paused') execute function not_resting();
            """
        )
        try:

            def tried() -> int:
                query = "select last_value, is_called from resting"
                row = connection.execute(query).fetchone()
                assert row is not None
                return int(row[0]) if row[1] else 0

            yield tried
        finally:
            connection.execute("drop trigger not_resting on jobs")
            connection.execute("drop function not_resting; drop sequence resting")
