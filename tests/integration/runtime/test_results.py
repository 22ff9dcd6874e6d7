"""What runs return or raise is kept nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.prefect_api import PrefectApi
from tests.support.process import running
from tests.support.stack import Stack

TOYS = "tests.support.toy_flows"


def test_what_a_run_raises_is_in_no_file(
    installation: Stack, api: PrefectApi, tmp_path: Path
) -> None:
    """Prefect pickles it whatever ``persist_result`` says, and it could have a secret in it."""
    name, here = "keeps-nothing", tmp_path / "here"
    here.mkdir()
    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]
    with running(
        [*command, "--name", name, "--queue", name],
        log=tmp_path / "worker.log",
        env={**installation.env, "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(here / "storage")},
        cwd=here,
        # Those of other tests may be silent by now: exit code 1.
        ready=lambda: name in installation.cli("executor", "list").stdout,
        within=90,
    ):
        deployed = [
            api.deploy("toy-failing", f"{TOYS}.fail", queue=name),
            api.deploy("toy-failing-sync", f"{TOYS}.fail_synchronously", queue=name),
        ]
        ended = [api.wait(api.run(deployment)) for deployment in deployed]

    assert [run["state_type"] for run in ended] == ["FAILED", "FAILED"]
    assert all("meant to fail" in run["state"]["message"] for run in ended)
    assert list(here.rglob("*")) == []
    # Nor is the server told of a file.
    assert not ended[0]["state"]["data"]
    installation.cli("executor", "forget", name)
