"""``certrail doctor`` names what is wrong, and what to do about it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from certrail.keys.seal import new_key
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack, cli, environment


def _findings(output: str) -> dict[str, dict[str, Any]]:
    return {finding["check"]: finding for finding in json.loads(output)}


def test_a_good_installation_has_no_finding_but_ok(installation: Stack, api: PrefectApi) -> None:
    """A doctor that always finds something is soon not asked any more."""

    def workers_known() -> bool:
        return bool(api.post("/work_pools/agents/workers/filter"))

    wait_for(workers_known, "the worker's first heartbeat", within=30)

    done = installation.cli("doctor", "--json")

    found = _findings(done.stdout)
    assert [f for f in found.values() if f["status"] != "ok"] == []
    assert {"prefect-version", "fastapi-version", "installation", "database", "key"} <= set(found)
    assert {"server", "server-settings", "pool-agents", "pool-sensors"} <= set(found)
    assert done.returncode == 0


def test_a_paused_pool_is_noticed(installation: Stack, api: PrefectApi) -> None:
    """Somebody paused it in the UI weeks ago, and nothing begins any more."""
    api.patch("/work_pools/sensors", is_paused=True)
    try:
        done = installation.cli("doctor", "--json")
    finally:
        api.patch("/work_pools/sensors", is_paused=False)

    found = _findings(done.stdout)["pool-sensors"]
    assert found["status"] == "warning"
    assert "resume" in found["remedy"]
    assert done.returncode == 0


def test_where_nothing_runs_it_says_how_to_start(tmp_path: Path) -> None:
    """The first command of somebody who has just installed it."""
    done = cli("doctor", env=environment(tmp_path))

    assert done.returncode == 3
    assert "certrail up" in done.stdout


def test_a_server_that_does_not_answer_is_named(installation: Stack) -> None:
    """The variable may point to yesterday's server."""
    env = {**installation.env, "PREFECT_API_URL": "http://127.0.0.1:9/api"}

    done = cli("doctor", "--json", env=env)

    assert done.returncode == 3
    assert "http://127.0.0.1:9/api" in _findings(done.stdout)["server"]["message"]


@pytest.mark.parametrize("key", [new_key(), "short"], ids=["another", "damaged"])
def test_a_wrong_key_is_found_before_a_request_needs_it(
    installation: Stack, sealed_value: None, key: str
) -> None:
    """It would show when a certificate is installed, at night."""
    done = cli("doctor", "--json", env={**installation.env, "CERTRAIL_KEY": key})

    found = _findings(done.stdout)["key"]
    assert found["status"] == "failed"
    assert found["remedy"]
    assert done.returncode == 1


@pytest.fixture
def sealed_value(installation: Stack) -> None:
    """A private key in the installation's store, sealed under its key."""
    code = (
        "from certrail.settings import adopt; adopt();"
        "from certrail.store import keys, database;"
        "from certrail.private_key import PrivateKeyPem;\n"
        "with database.transaction() as c:"
        " keys.keep(c, PrivateKeyPem(b'x'), purpose='leaf', algorithm='ecdsa-p256')"
    )
    subprocess.run([sys.executable, "-c", code], env=installation.env, check=True)
