"""The sweep of an installation asks a real ACME CA when it wants its certificates renewed."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

from tests.support.acme_servers import AcmeServer, acme2certifier
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack

LOCATION = "ari-here/asked"
RETRY_AFTER = timedelta(days=1)  # what this server says
WINDOW = timedelta(minutes=1)


def test_the_sweep_keeps_the_window_and_asks_no_sooner_than_it_may(
    installation: Stack, tmp_path: Path
) -> None:
    """RFC 9773 section 4.3: the CA says when it may be asked again, and until then it is not."""
    with (
        acme2certifier(tmp_path, renewal_percent=66) as ca,
        closing(PrefectApi(installation.api_url)) as api,
    ):
        applied = installation.cli("apply", "-f", str(_configuration(tmp_path, ca)))
        assert applied.returncode == 0, applied.stderr
        done = installation.cli("request", "start", LOCATION, "--wait")
        assert done.returncode == 0, done.stdout + done.stderr
        sweep = api.get("/deployments/name/renewal-sweep/every-minute")["id"]

        def known() -> dict[str, Any]:
            # Cancelled where the run of this minute is under way.
            api.wait(api.run(sweep))
            return _info(installation)

        wait_for(lambda: bool(known()), "the CA was asked", within=150)
        first = known()
        lifetime = first["not_after"] - first["not_before"]
        assert first["error"] is None
        assert abs(first["window_start"] - (first["not_before"] + lifetime * 0.66)) < WINDOW
        assert abs(first["window_end"] - first["not_after"]) < WINDOW
        assert first["ask_again_at"] - first["asked_at"] == RETRY_AFTER
        # The renewal goes by it.
        wait_for(lambda: known()["code"] == "renewal-ari", "it is decided by it", within=150)
        again = known()
        assert again["window_start"] <= again["next_renewal_at"] <= again["window_end"]
        assert again["asked_at"] == first["asked_at"]

        # A day later.
        with psycopg.connect(installation.database_url) as connection:
            connection.execute(
                "update renewal_info set asked_at = asked_at - interval '25 hours',"
                " ask_again_at = ask_again_at - interval '25 hours' where certificate_id = %s",
                [first["certificate_id"]],
            )
        wait_for(lambda: known()["asked_at"] > first["asked_at"], "asked again", within=150)
        assert known()["ask_again_at"] > datetime.now(UTC) + timedelta(hours=23)

    # Away: what it said last stays in force, and it is asked again within the hour.
    with psycopg.connect(installation.database_url) as connection:
        connection.execute(
            "update renewal_info set ask_again_at = now() where certificate_id = %s",
            [first["certificate_id"]],
        )
    with closing(PrefectApi(installation.api_url)) as api:
        wait_for(
            lambda: bool(api.wait(api.run(sweep)) and _info(installation)["error"]),
            "the CA is found to be away",
            within=150,
        )
    away = _info(installation)
    assert away["window_start"] == first["window_start"]
    assert away["ask_again_at"] - away["asked_at"] == timedelta(hours=1)


def _info(installation: Stack) -> dict[str, Any]:
    query = """
      select i.*, c.not_before, c.not_after, e.next_renewal_at, e.renewal->>'code' as code
      from endpoints e join certificates c on c.id = e.certificate_id
      join renewal_info i on i.certificate_id = c.id where e.location = %s
    """
    with psycopg.connect(installation.database_url, row_factory=dict_row) as connection:
        return connection.execute(query, [LOCATION]).fetchone() or {}


def _configuration(folder: Path, ca: AcmeServer) -> Path:
    path = folder / "ari.yaml"
    whole = {
        "connectors": [
            {
                "name": "ari-ca",
                "type": "ca-acme",
                "directory_url": ca.directory_url,
                "contact": "ops@example.com",
            },
            {"name": "ari-here", "type": "host-local"},
        ],
        "profiles": [
            {
                "name": "ari",
                "workflow": "delivery",
                "ca": "ari-ca",
                "validation": {"method": "http-01", "webroot": str(folder / "webroot")},
            }
        ],
        "endpoints": [
            {
                "location": LOCATION,
                "names": ["asked.ari.test"],
                "profile": "ari",
                "target": "ari-here",
                "server": {"kind": "directory", "path": str(folder / "delivered")},
            }
        ],
    }
    (folder / "webroot").mkdir()
    path.write_text(yaml.safe_dump(whole))
    return path
