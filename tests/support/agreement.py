"""Does Prefect show what the inventory has? For the end of bulk and chaos tests.

must_agree(installation, job="spring")
must_agree(installation, locations=["www.example.test:443"])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing

import psycopg
from sqlalchemy import make_url

from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack


def must_agree(
    installation: Stack, *, job: str | None = None, locations: Sequence[str] = (), within: int = 120
) -> str:
    """Fail with every difference that does not pass by itself; returns what was compared.

    Flow run against request, task runs against steps: states, names, texts,
    labels, counts, nothing lost, doubled or left running; the run of a job that is
    over, and its shards' runs, against the job. *within* (seconds) only
    bounds the wait where something differs: reconciliation may still be at work.
    """
    asked = ["--job", job] if job else []
    asked += [word for location in locations for word in ("--location", location)]
    done = installation.cli(
        "doctor", "--runs", *asked, "--settle", f"{within}s", "--json", within=within + 120
    )
    assert done.stdout, done.stderr
    findings = json.loads(done.stdout)
    wrong = [f"{one['check']}: {one['message']}" for one in findings if one["status"] != "ok"]
    assert not wrong, "\n".join(wrong)
    assert done.returncode == 0, done.stderr
    return str(findings[0]["message"])


def repair(api: PrefectApi) -> None:
    """Do what happens by itself a minute later: one run of the reconcile flow, to its end."""
    deployment = api.get("/deployments/name/reconcile/every-minute")["id"]

    def is_through() -> bool:
        # Cancelled where the run of this minute is under way.
        return bool(api.wait(api.run(deployment))["state"]["type"] == "COMPLETED")

    wait_for(is_through, "a repair ran", within=180)


def must_agree_on_bare_runs(
    installation: Stack, locations: Sequence[str], *, killed: bool = False
) -> str:
    """As :func:`must_agree`, of runs that a test began itself, without their deployment.

    Whoever makes runs gives them name and labels, so here the test does. With *killed*
    runs died that no deployment takes up again: the repair ends them ten minutes later,
    which is made to be now.
    """
    with (
        psycopg.connect(installation.database_url) as connection,
        closing(PrefectApi(installation.api_url)) as api,
    ):
        rows = connection.execute(
            "select r.id, r.flow_run_id, r.action, e.location from requests r"
            " join endpoints e on e.id = r.endpoint_id where e.location = any(%s)",
            [list(locations)],
        ).fetchall()
        for request_id, run, action, location in rows:
            labels = {"certrail.request": str(request_id), "certrail.endpoint": location}
            api.patch(f"/flow_runs/{run}/labels", **labels)
            api.patch(f"/flow_runs/{run}", name=f"{action} {location}")
        if killed:
            _end_the_dead(installation, api, [str(request_id) for request_id, *_ in rows])
    return must_agree(installation, locations=locations, within=180)


def _end_the_dead(installation: Stack, api: PrefectApi, requests: Sequence[str]) -> None:
    url = make_url(installation.database_url).set(database="prefect", drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as prefect:
        of = "f.parameters ->> 'request_id' = any(%s) and f.state_type in ('RUNNING', 'PENDING')"
        prefect.execute(
            "update flow_run_state s set timestamp = s.timestamp - interval '11 minutes'"
            f" from flow_run f where f.state_id = s.id and {of}",
            [list(requests)],
        )

        def is_through() -> bool:
            repair(api)
            row = prefect.execute(f"select count(*) from flow_run f where {of}", [list(requests)])
            return row.fetchone() == (0,)

        wait_for(is_through, "the runs that were killed are ended", within=120)
