"""What breaks around a job while it runs: endpoints, the server, the database, the CA."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

from tests.integration.jobs.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.bulk import Estate, chosen
from tests.support.digicert_one_api import DigicertOneApi
from tests.support.process import free_port, running, wait_for
from tests.support.rest_server import Answer, Call, Refusal, serving
from tests.support.signing_ca import PEM
from tests.support.stack import connect_anew


def test_an_endpoint_that_vanishes_fails_alone_and_says_why(
    shell: Shell, endpoints: Estate
) -> None:
    """A server is taken away while the job runs; the others have nothing to do with that."""
    gone = endpoints.names[-1]
    whole = endpoints.configuration(install_timeout_seconds=5)
    port = free_port()
    whole["endpoints"] = whole["endpoints"][5:]
    for endpoint in whole["endpoints"]:
        endpoint["server"]["test"] = ["sleep", "0.5"]
    whole["endpoints"][-1]["address"] = f"127.0.0.1:{port}"
    shell("apply", "-f", str(endpoints.write(whole)))
    name = f"vanish-{endpoints.prefix}"
    server = [sys.executable, "-m", "tests.support.sni_server", str(endpoints.folder / "live")]

    with running([*server, str(port)], log=endpoints.folder / "gone.log", port=port):
        shell(
            "job", "start", name, "--filter", f"tag={endpoints.prefix}",
            "--concurrency", "1", "--max-failures", "1",
        )  # fmt: skip
        shell.wait_until(name, "endpoints in progress", "in_progress", 1)
    told = shell.wait_for_status(name, "completed")

    assert told["counts"]["successful"] == 2
    assert told["counts"]["failed"] == 1
    assert [one["example"] for one in told["failures"]] == [f"{gone}:443"]
    assert "refused" in told["failures"][0]["cause"]
    assert endpoints.issued() == dict.fromkeys(endpoints.names[5:], 1)
    must_agree(shell.stack, job=name)


def test_a_job_survives_a_restart_of_the_server_and_of_the_database(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """Both are upgraded now and then, and nobody looks for a night without jobs."""
    shell.apply(endpoints, slow=endpoints.names)
    name = f"outage-{endpoints.prefix}"
    some = chosen(endpoints.locations()[:5], tmp_path)
    shell("job", "start", name, "--locations-file", str(some), "--concurrency", "1")
    shell.wait_until(name, "successful endpoints", "successful", 1)

    stops = (
        ("cli._serve", "the Prefect server", signal.SIGTERM),
        ("pginstall", "PostgreSQL", signal.SIGINT),  # its fast shutdown
    )
    for marker, part, how in stops:
        again = f"{part} runs again"
        said = shell.stack.said().count(again)
        os.kill(shell.stack.child(marker), how)
        wait_for(
            lambda again=again, said=said: shell.stack.said().count(again) > said,  # type: ignore[misc]
            again,
            within=90,
        )
    connect_anew()
    wait_for(shell.api.answers, "the API answers", within=90)
    told = shell.wait_for_status(name, "completed", within=240)

    assert told["counts"]["successful"] == 5
    assert endpoints.issued() == dict.fromkeys(endpoints.names[:5], 1)
    table = shell.artifacts(told["flow_run_id"])["table"]
    assert [row["endpoint"] for row in table] == endpoints.locations()[:5]
    assert {row["status"] for row in table} == {"Automation successful"}
    must_agree(shell.stack, job=name)


class Throttling(DigicertOneApi):
    """Asks everybody to come back later the first time: in seconds, or at a moment."""

    def __init__(self, domain: str) -> None:
        super().__init__(domain)
        self.put_off: set[str] = set()

    def enter(self, call: Call) -> None:
        super().enter(call)
        if call.path != "/mpki/api/v1/certificate" or not isinstance(call.body, dict):
            return
        name = call.body["attributes"]["extensions"]["san"]["dns_names"][0]
        if name in self.put_off:
            return
        self.put_off.add(name)
        moment = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        later = "1" if len(self.put_off) % 2 else moment
        body = {"errors": [{"code": "too_many_requests", "message": "slow down"}]}
        raise Refusal(Answer(429, body, {"Retry-After": later}))


class Closed(DigicertOneApi):
    """Puts everybody off for some seconds until it is opened, and counts who asks meanwhile."""

    seconds = 5

    def __init__(self, domain: str) -> None:
        super().__init__(domain)
        self.is_open = False
        self.asked_at_once: list[int] = []
        self._ends = 0.0

    def enter(self, call: Call) -> None:
        super().enter(call)
        if self.is_open or call.path != "/mpki/api/v1/certificate":
            return
        if time.monotonic() >= self._ends:
            self._ends = time.monotonic() + self.seconds
            self.asked_at_once.append(0)
        self.asked_at_once[-1] += 1
        body = {"errors": [{"code": "too_many_requests", "message": "slow down"}]}
        raise Refusal(Answer(429, body, {"Retry-After": str(self.seconds)}))


def test_a_ca_that_throttles_is_left_alone_by_everybody_and_other_cas_go_on(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """Who was put off is waited for by all: members of the job and requests that run alone."""
    api = Closed(endpoints.zone)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(api.ca.root.public_bytes(PEM))
    with serving(api):
        whole = endpoints.configuration()
        name = f"{endpoints.prefix}-closed"
        whole["connectors"].append(
            {"name": name, "type": "ca-digicert-one", "url": api.url, "api_key": api.key,
             "profile_id": api.profile}
        )  # fmt: skip
        # As its imitation has no key identifiers in its certificates.
        closed = {**whole["profiles"][0], "name": name, "ca": name, "trust": str(roots)}
        whole["profiles"].append({**closed, "client": "openssl"})
        for endpoint in whole["endpoints"][2:]:
            endpoint["profile"] = name
        shell("apply", "-f", str(endpoints.write(whole)))
        some = chosen(endpoints.locations()[:7], tmp_path)
        alone = endpoints.locations()[7]
        shell("job", "start", name, "--locations-file", str(some), "--concurrency", "2")

        shell.wait_until(name, "successful endpoints", "successful", 2)
        wait_for(lambda: shell.json("job", "show", name)["waits_for"], "the job waits")
        shell("request", "start", alone)
        wait_for(lambda: "waits_for" in shell.json("request", "show", alone), "it waits too")
        wait_for(lambda: "slow down" in shell("job", "show", name).stdout, "people are told")
        before = shell.json("job", "show", name)
        api.is_open = True
        told = shell.wait_for_status(name, "completed")
        wait_for(
            lambda: shell.json("request", "show", alone)["status"] == "automation-successful",
            "the request that runs alone is done",
            within=120,
        )

    assert before["counts"]["successful"] == 2
    assert before["counts"]["failed"] == 0
    assert told["counts"]["successful"] == 7
    # Two places of the job and the request alone, not each of six endpoints.
    assert max(api.asked_at_once) <= 3
    assert {api.issued(each) for each in endpoints.names[2:]} == {1}
    must_agree(shell.stack, job=name)


def test_a_ca_that_asks_to_come_back_later_fails_nobody(
    shell: Shell, endpoints: Estate, tmp_path: Path
) -> None:
    """Who is put off gives its place to the next and comes back when it was told to."""
    api = Throttling(endpoints.zone)
    roots = tmp_path / "roots.pem"
    roots.write_bytes(api.ca.root.public_bytes(PEM))
    with serving(api):
        ca: dict[str, Any] = {
            "name": f"{endpoints.prefix}-ca",
            "type": "ca-digicert-one",
            "url": api.url,
            "api_key": api.key,
            "profile_id": api.profile,
        }
        # As its imitation has no key identifiers in its certificates.
        whole = endpoints.configuration(trust=str(roots), client="openssl")
        whole["connectors"][0] = ca
        shell("apply", "-f", str(endpoints.write(whole)))
        name = f"later-{endpoints.prefix}"

        told = shell.json(
            "job", "start", name, "--filter", f"tag={endpoints.prefix}",
            "--concurrency", "2", "--max-failures", "0", "--wait",
        )  # fmt: skip

    assert told["counts"]["successful"] == 8
    assert api.put_off == set(endpoints.names)
    assert {each: api.issued(each) for each in endpoints.names} == dict.fromkeys(endpoints.names, 1)
    asked = [path for method, path in api.calls if path == "/mpki/api/v1/certificate"]
    assert len(asked) == 16
    must_agree(shell.stack, job=name)
