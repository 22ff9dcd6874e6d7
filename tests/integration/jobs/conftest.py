"""Bulk jobs against a whole installation, a CA on disk and endpoints that really handshake."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from tests.support.bulk import Estate, estate
from tests.support.forked_cli import ForkedCli, forked_cli
from tests.support.prefect_api import PrefectApi
from tests.support.process import wait_for
from tests.support.stack import Stack

# Installing takes this long where a test wants to catch a job at work.
SLOW = ["sleep", "0.7"]


def broken_by(message: str = "unknown directive") -> list[str]:
    """Return a server's test that fails with *message*."""
    return ["sh", "-c", f"echo {message} >&2; exit 1"]


BROKEN = broken_by()


class Shell:
    """A shell beside the installation, and an estate for each test.

    Attributes:
        stack: the installation.
        api: Prefect's API.
    """

    def __init__(self, stack: Stack, forked: ForkedCli, api: PrefectApi) -> None:
        self.stack = stack
        self.api = api
        self._forked = forked

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run ``certrail``; it has to end with *code* and without a traceback."""
        done = self._forked(*arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run ``certrail … --json`` and return what it printed."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def apply(
        self,
        estate_: Estate,
        *,
        slow: Sequence[str] = (),
        broken: Sequence[str] | Mapping[str, str] = (),
    ) -> None:
        """Apply the estate; installing is *slow* or *broken* (by a message) at some names."""
        by = broken if isinstance(broken, Mapping) else dict.fromkeys(broken, "unknown directive")
        whole = estate_.configuration()
        for endpoint in whole["endpoints"]:
            name = endpoint["names"][0]
            if name in slow:
                endpoint["server"]["test"] = SLOW
            if name in by:
                endpoint["server"]["test"] = broken_by(by[name])
        self("apply", "-f", str(estate_.write(whole)))

    def members(self, job: str, kind: str) -> list[dict[str, Any]]:
        """Return the runs of a job's endpoints that are in a state of Prefect."""
        found: list[dict[str, Any]] = self.api.post(
            "/flow_runs/filter",
            flow_runs={"tags": {"all_": [f"job:{job}"]}, "state": {"type": {"any_": [kind]}}},
            flows={"name": {"any_": ["web-server"]}},
        )
        return found

    def artifacts(self, run: str) -> dict[str, Any]:
        """Return what the artifacts of a job's run hold, by their type."""
        artifacts: list[dict[str, Any]] = self.api.post(
            "/artifacts/filter", artifacts={"flow_run_id": {"any_": [run]}}
        )
        found = {artifact["type"]: artifact["data"] for artifact in artifacts}
        table = found["table"]
        return {**found, "table": json.loads(table) if isinstance(table, str) else table}

    def most_at_once(self, job: str, below: str = "") -> int:
        """Return how many endpoints of a job were at work at the same time, from its records.

        *below* a domain, if one is given.
        """
        return self._most_at_once(
            "join jobs j on j.id = r.job_id where j.name = %s and e.location like %s",
            [job, f"%{below}:443"],
        )

    def most_alone_at_once(self, locations: Sequence[str]) -> int:
        """Return how many of these endpoints were at work at the same time, from the records.

        For requests that run alone.
        """
        return self._most_at_once(
            "where r.job_id is null and e.location = any(%s)", [list(locations)]
        )

    def _most_at_once(self, which: str, parameters: list[Any]) -> int:
        # What installs on one machine takes turns there, so that its commands would tell nothing.
        query = f"""
          select r.started_at, r.ended_at from requests r
          join endpoints e on e.id = r.endpoint_id {which}
        """
        with psycopg.connect(self.stack.database_url) as connection:
            spans = connection.execute(query, parameters).fetchall()
        most = max(sum(begin <= moment < end for begin, end in spans) for moment, _ in spans)
        return int(most)

    @contextmanager
    def limit(
        self, name: str, slots: int, decay: float = 0.0, *, active: bool = True
    ) -> Iterator[None]:
        """Set a global limit while the block runs."""
        self.api.post(
            "/v2/concurrency_limits/",
            name=name,
            limit=slots,
            slot_decay_per_second=decay,
            active=active,
        )
        try:
            yield
        finally:
            self.api.delete(f"/v2/concurrency_limits/{name}")

    def wait_until(self, job: str, what: str, key: str, least: int, within: float = 120) -> None:
        """Wait until so many endpoints of a job are counted under *key*."""
        wait_for(
            lambda: self.json("job", "show", job)["counts"][key] >= least,
            f"{what} of {job}",
            within=within,
        )

    def wait_for_status(self, job: str, status: str, within: float = 120) -> dict[str, Any]:
        """Wait until a job has a status and return what is shown of it."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.json("job", "show", job))
            return bool(seen["status"] == status)

        wait_for(there, f"{job} is {status}", within=within)
        return seen


@pytest.fixture(scope="session")
def shell(installation: Stack) -> Iterator[Shell]:
    """A shell of the account that runs the installation."""
    api = PrefectApi(installation.api_url)
    with forked_cli(installation.env) as forked:
        yield Shell(installation, forked, api)
    api.close()


@pytest.fixture
def endpoints(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Estate]:
    """Eight endpoints of the test's own; their tag is :attr:`Estate.prefix`."""
    prefix = f"j{abs(hash(request.node.name)) % 10**8}x"
    with estate(tmp_path_factory.mktemp("estate") / "e", prefix, 8) as served:
        yield served
