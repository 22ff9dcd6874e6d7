"""A whole installation tells people: from a failed run to a mail that arrives, once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml

from deployments.automations import TAG
from tests.support.hook_server import HookServer, hook_server
from tests.support.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.support.process import free_port, wait_for
from tests.support.stack import Stack

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
TEAM = "team-zürich@example.test"


@dataclass
class Office:
    """An installation with a mail server and a webhook that its rules name."""

    stack: Stack
    mail: MailServer
    hooks: HookServer
    folder: Path

    def apply(self, document: dict[str, Any]) -> None:
        path = self.folder / f"{uuid4()}.yaml"
        path.write_text(yaml.safe_dump(document))
        done = self.stack.cli("apply", "-f", str(path))
        assert done.returncode == 0, done.stderr

    def json(self, *arguments: str) -> Any:
        done = self.stack.cli(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def mails(self, text: str) -> list[Any]:
        return [one for one in list(self.mail.received) if text in one.text]

    def api(self, method: str, path: str, **kwargs: Any) -> Any:
        reply = httpx.request(method, f"{self.stack.api_url}{path}", timeout=30, **kwargs)
        reply.raise_for_status()
        return reply.json() if reply.content else None


@pytest.fixture(scope="module")
def office(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with mail_server("starttls", auth=True) as mail, hook_server(SECRET) as hooks:
        there = Office(installation, mail, hooks, tmp_path_factory.mktemp("office"))
        there.apply(
            {
                "connectors": [
                    {
                        "name": "office-mail",
                        "type": "notifier-smtp",
                        "host": "127.0.0.1",
                        "port": mail.port,
                        "username": USER,
                        "password": PASSWORD,
                        "sender": "Certrail <certrail@example.test>",
                        "ca_bundle": mail.ca_bundle,
                    },
                    {
                        "name": "office-hook",
                        "type": "notifier-webhook",
                        "url": hooks.url,
                        "secret": SECRET,
                    },
                    {
                        "name": "office-ca",
                        "type": "ca-acme",
                        "directory_url": f"http://127.0.0.1:{free_port()}/directory",
                        "contact": "ops@example.test",
                    },
                    {"name": "office-host", "type": "host-local"},
                ],
                "notifications": {
                    "email": ["ops@example.test"],
                    "channels": ["office-hook"],
                    "mail": "office-mail",
                },
                "profiles": [
                    {
                        "name": "office",
                        "workflow": "web-server",
                        "ca": "office-ca",
                        "validation": {"method": "http-01", "webroot": "/nonexistent"},
                        "notifications": {"email": [TEAM]},
                    }
                ],
                "endpoints": [
                    {
                        "location": f"{name}.office.example.test:443",
                        "names": [f"{name}.office.example.test"],
                        "profile": "office",
                        "target": "office-host",
                        "server": {
                            "kind": "nginx",
                            "config": "/nonexistent/nginx.conf",
                            "site": f"{name}.office.example.test",
                        },
                    }
                    for name in ("first", "second")
                ],
            }
        )
        yield there
        there.apply({"notifications": {"email": [], "channels": []}})


def test_a_test_message_arrives(office: Office) -> None:
    """Before anybody relies on it."""
    results = office.json("notify", "test")

    assert [one["ok"] for one in results] == [True, True]
    assert any("Test message" in one.subject for one in office.mail.received)
    assert all(one.encrypted for one in office.mail.received)


def test_a_failed_request_is_told_once_to_everybody_it_concerns(office: Office) -> None:
    """Account and team, text and HTML, with what is needed at three in the morning."""
    location = "first.office.example.test:443"
    started = office.json("request", "start", location)
    wait_for(
        lambda: len(office.mails(location)) >= 2,
        "two mails about the failed request",
        within=90,
    )
    # A round of the schedule later there is still one for each.
    rows = _rows(office, location)
    assert Counter(row["recipient"] for row in rows) == {"ops@example.test": 1, TEAM: 1, "": 1}
    wait_for(
        lambda: {row["status"] for row in _rows(office, location)} == {"sent"},
        "everybody is told",
        within=90,
    )

    mails = office.mails(location)
    assert sorted(one.recipients[0] for one in mails) == sorted(["ops@example.test", TEAM])
    for mail in mails:
        assert mail.subject.startswith(f"[Certrail] Automation failed: {location}")
        for part in (mail.text, mail.html):
            assert "1. ACME account created" in part
            assert f"certrail request retry {started['request_id'][:8]}" in part
            assert f"/runs/flow-run/{started['flow_run_id']}" in part
            assert "Cause" in part
            assert "Remedy" in part
        assert PASSWORD not in mail.raw.decode(errors="replace")
    assert any(one["events"][0]["location"] == location for one in office.hooks.received)
    _events_are_in_prefect_once(office, location)


def _rows(office: Office, location: str) -> list[dict[str, Any]]:
    rows = office.json("notify", "log", "--location", location)
    return [row for row in rows if row["event"] == "automation-failed"]


def _events_are_in_prefect_once(office: Office, location: str) -> None:
    resource = f"certrail.endpoint.{location}"

    def found() -> Counter[str]:
        page = office.api(
            "POST", "/events/filter", json={"filter": {"resource": {"id": [resource]}}, "limit": 50}
        )
        return Counter(one["event"] for one in page["events"])

    wait_for(lambda: "certrail.request.failed" in found(), "the event in Prefect", within=60)
    assert found()["certrail.request.started"] == 1
    assert found()["certrail.step.failed"] == 1
    assert found()["certrail.request.failed"] == 1


def test_automations_are_there_and_stay_as_people_want_them(office: Office) -> None:
    """Made once, seen in Prefect's pages; what is switched off stays off."""
    first = _automations(office)
    assert {"Certrail: tell at once", "Certrail: a run crashed"} <= {a["name"] for a in first}
    assert all(one["enabled"] and one["description"] for one in first)
    late = next(one for one in first if one["name"] == "Certrail: a request is late")
    office.api("PATCH", f"/automations/{late['id']}", json={"enabled": False})
    try:
        _bootstrap(office)
        second = _automations(office)
        assert sorted(a["id"] for a in second) == sorted(a["id"] for a in first)
        assert not next(one for one in second if one["id"] == late["id"])["enabled"]
    finally:
        office.api("PATCH", f"/automations/{late['id']}", json={"enabled": True})


def _bootstrap(office: Office) -> None:
    env = {**office.stack.env, "PREFECT_API_URL": office.stack.api_url}
    subprocess.run([sys.executable, "-m", "deployments.bootstrap"], env=env, check=True, cwd="/")


def _automations(office: Office) -> list[dict[str, Any]]:
    found = office.api("POST", "/automations/filter", json={"limit": 100})
    return [one for one in found if TAG in one["tags"]]


def test_a_crashed_run_is_told_once(office: Office) -> None:
    """Whatever crashed: somebody should know that a worker died."""
    found = office.api("GET", "/deployments/name/reconcile/every-minute")
    name = f"crash-{uuid4().hex[:8]}"
    run = office.api(
        "POST",
        f"/deployments/{found['id']}/create_flow_run",
        json={
            "name": name,
            "state": {
                "type": "SCHEDULED",
                "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"},
            },
        },
    )
    office.api(
        "POST",
        f"/flow_runs/{run['id']}/set_state",
        json={"state": {"type": "CRASHED", "message": "killed by SIGKILL"}, "force": True},
    )
    wait_for(lambda: bool(office.mails(name)), "a mail about the crash", within=90)

    (mail,) = office.mails(name)
    assert mail.subject.startswith("[Certrail] Prefect run crashed")
    assert "killed by SIGKILL" in mail.text
    assert f"/runs/flow-run/{run['id']}" in mail.text
    deadline = time.monotonic() + 5
    wait_for(lambda: time.monotonic() > deadline, "a while", within=10)
    assert len(office.mails(name)) == 1
