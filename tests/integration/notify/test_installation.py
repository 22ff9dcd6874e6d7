"""A whole installation tells people: from a failed run to a mail that arrives, once."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import yaml

from certrail.model import Chain
from deployments.automations import TAG
from tests.support.hook_server import HookServer, hook_server
from tests.support.hurry import hurried
from tests.support.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.support.nginx import Nginx
from tests.support.prefect_api import FINAL, PrefectApi
from tests.support.process import free_port, running, wait_for
from tests.support.stack import ROOT, Stack, environment
from tests.support.tls_servers import Authority, Issued, pem, tls_server

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
TEAM = "team-zürich@example.test"


RULES = {"email": ["ops@example.test"], "channels": ["office-hook"], "mail": "office-mail"}


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
                "notifications": RULES,
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
                        **_site(f"{name}.office.example.test"),
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


def test_words_of_ones_own_are_shown_before_they_are_sent(office: Office, tmp_path: Path) -> None:
    """Whoever edits them sees at once what people will read."""
    words = {
        "test": {"subject": "Prüfung: {{ title }}", "text": "Von {{ severity }}."},
        "automation-failed": {"subject": "PKI: {{ location }} braucht dich"},
    }
    before = office.json("notify", "preview", "--event", "automation-failed")
    assert before["subject"].startswith("[Certrail] Automation failed")
    try:
        office.apply({"notifications": RULES | {"templates": words}})
        shown = office.json("notify", "preview", "--event", "automation-failed")
        assert re.fullmatch("PKI: [^ ]+ braucht dich", shown["subject"])
        assert shown["text"] == before["text"]
        wrong = tmp_path / "wrong.yaml"
        broken = {"test": {"subject": "{{ title.mro() }}"}}
        wrong.write_text(yaml.safe_dump({"notifications": RULES | {"templates": broken}}))
        refused = office.stack.cli("apply", "-f", str(wrong))
        assert (refused.returncode, "templates" in refused.stderr) == (2, True), refused.stderr
        assert office.json("notify", "preview", "--event", "automation-failed") == shown

        assert all(one["ok"] for one in office.json("notify", "test"))
    finally:
        office.apply({"notifications": RULES})
    (mail,) = [one for one in office.mail.received if one.subject == "Prüfung: Test message"]
    assert mail.text.strip() == "Von info."
    told = {one["event"]: one["to"] for one in office.json("notify", "list")}
    assert sorted(told["automation-failed"]) == ["office-hook", "ops@example.test"]
    assert told["automation-completed"] == []


def test_a_failed_request_is_told_once_to_everybody_it_concerns(office: Office) -> None:
    """Account and team, text and HTML, with what is needed at three in the morning."""
    location = "first.office.example.test:443"
    started = office.json("request", "start", location)
    with closing(PrefectApi(office.stack.api_url)) as api, hurried(api, "send-notifications"):
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
    assert {
        "Certrail: tell at once",
        "Certrail: a job is over its threshold",
        "Certrail: an agent or sensor is silent",
        "Certrail: a renewal is overdue",
        "Certrail: a run crashed",
        "Certrail: upkeep failed",
        "Certrail: a request is late",
        "Certrail: reconcile stays away",
    } <= {a["name"] for a in first}
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


def test_a_saved_report_arrives_as_a_mail_with_its_file_once(office: Office) -> None:
    """By the schedule of its own deployment, and whenever somebody asks there."""
    readers = ["board@example.test", "prüfung@example.test"]
    made = ["--kind", "endpoints", "--profile", "office", "--format", "csv"]
    told = ["report", "save", "office-weekly", *made, "--timezone", "Europe/Berlin"]
    for reader in readers:
        told += ["--mail", reader]
    done = office.stack.cli(*told, "--cron", "0 6 * * mon")
    assert done.returncode == 0, done.stderr
    with closing(PrefectApi(office.stack.api_url)) as api:
        own = api.get("/deployments/name/saved-report/report-office-weekly")
        (schedule,) = own["schedules"]
        assert schedule["active"]
        assert schedule["schedule"]["cron"] == "0 6 * * mon"
        assert schedule["schedule"]["timezone"] == "Europe/Berlin"
        assert own["parameters"] == {"name": "office-weekly"}
        # The runs that Prefect made of its schedule; the first one's Monday is now.
        wait_for(lambda: bool(api.runs_of(own["id"])), "the runs of the schedule", within=60)
        coming = sorted(api.runs_of(own["id"]), key=lambda one: one["expected_start_time"])
        assert all(one["auto_scheduled"] for one in coming)
        api.post(f"/flow_runs/{coming[0]['id']}/set_state", state={"type": "SCHEDULED"}, force=True)
        assert api.wait(coming[0]["id"])["state_type"] == "COMPLETED", api.logs(coming[0]["id"])

        def arrived(count: int) -> bool:
            return all(len(office.mail.to(reader)) == count for reader in readers)

        wait_for(lambda: arrived(1), "a mail for each reader", within=150)
        run = api.run(own["id"])
        assert api.wait(run)["state_type"] == "COMPLETED", api.logs(run)
        wait_for(lambda: arrived(2), "a second one, asked for", within=150)
        by_name = api.get("/deployments/name/saved-report/by-name")["id"]
        refused = api.run(by_name, name="nothere")
        assert "there is no report nothere" in api.wait(refused, "FAILED")["state"]["message"]

        # Switched off in Prefect's pages it stays off, also when it is saved anew.
        api.patch(f"/deployments/{own['id']}/schedules/{schedule['id']}", active=False)
        done = office.stack.cli(*told, "--cron", "30 7 * * mon")
        assert done.returncode == 0, done.stderr
        assert "paused in Prefect" in done.stderr
        (schedule,) = api.get(f"/deployments/{own['id']}")["schedules"]
        assert (schedule["active"], schedule["schedule"]["cron"]) == (False, "30 7 * * mon")
        assert not [o for o in api.runs_of(own["id"]) if o["state_type"] == "SCHEDULED"]
        (listed,) = [o for o in office.json("report", "list") if o["name"] == "office-weekly"]
        assert (listed["paused"], listed["next_at"]) == (True, None)

        done = office.stack.cli("report", "delete", "office-weekly")
        assert done.returncode == 0, done.stderr
        assert "report-office-weekly" not in api.deployments()
        # What is missing, or too much, is put right by the regular run.
        regular = api.get("/deployments/name/report/every-quarter-hour")["id"]
        with psycopg.connect(office.stack.database_url) as connection:
            connection.execute(
                "insert into reports (name, kind, format, settings, cron, timezone, saved_by)"
                " values ('office-old', 'audit', 'csv', '{}', '0 6 * * *', 'UTC', 'me')"
            )
        assert api.wait(api.run(regular))["state_type"] == "COMPLETED"
        assert "report-office-old" in api.deployments()
        with psycopg.connect(office.stack.database_url) as connection:
            connection.execute("delete from reports where name = 'office-old'")
        assert api.wait(api.run(regular))["state_type"] == "COMPLETED"
        assert "report-office-old" not in api.deployments()

    assert arrived(2)
    for mail in [one for reader in readers for one in office.mail.to(reader)]:
        assert mail.subject.startswith("[Certrail] Report is ready: office-weekly")
        (file,) = mail.mail.iter_attachments()
        assert str(file.get_filename()).startswith("office-weekly-")
        assert file.get_content_type() == "text/csv"
        _, *rows = file.get_content().splitlines()
        # What other tests add to the profile is there too.
        assert {"first.office.example.test:443", "second.office.example.test:443"} <= {
            row.partition(",")[0] for row in rows
        }
    others = [one.subject for one in office.mail.to("ops@example.test")]
    assert not [subject for subject in others if "Report is ready" in subject]


def test_an_agent_elsewhere_looks_for_us_and_its_silence_is_told_once(
    office: Office, tmp_path: Path
) -> None:
    """It has the API's address, a credential and a name; before the API is the documented proxy."""
    name = f"branch-{uuid4().hex[:6]}"
    location = f"{name}.office.example.test:443"
    root = Authority.root()
    ours, theirs = root.issue("far.test"), root.issue("far.test")
    with (
        closing(PrefectApi(office.stack.api_url)) as api,
        tls_server(ours) as before,
        tls_server(theirs) as after,
        _proxy(office, root, tmp_path / "proxy") as url,
    ):
        reached = {"location": location, "executor": name, **_site(location.partition(":")[0])}
        office.apply({"endpoints": [reached | {"address": f"127.0.0.1:{before}"}]})
        _put_on_record(office, location, ours, f"127.0.0.1:{before}")
        office.apply({"endpoints": [reached | {"address": f"127.0.0.1:{after}"}]})
        send = api.get("/deployments/name/send-notifications/every-minute")["id"]
        env = environment(
            tmp_path / "far",
            {
                "PREFECT_API_URL": f"{url}/api",
                "PREFECT_API_SSL_CERT_FILE": str(tmp_path / "proxy" / "root.pem"),
                "CERTRAIL_CREDENTIAL_FILE": str(_credential(office, tmp_path)),
            },
        )
        with _agent(office, name, env, tmp_path) as agent:
            for _ in range(2):
                assert f"asked {name}" in _scan(api)
                wait_for(lambda: not _open_scans(api, name), "the agent's look", within=90)
            (looked, *_) = _scans(api, name)
            assert looked["state_type"] == "COMPLETED", api.logs(looked["id"])
            assert looked["work_queue_name"] == name
            with hurried(api, "send-notifications"):
                wait_for(
                    lambda: bool(_told(office, "Another certificate", location)),
                    "drift",
                    within=150,
                )
            os.kill(agent.pid, signal.SIGKILL)
        waiting = office.json("request", "start", location)["request_id"]
        with psycopg.connect(office.stack.database_url) as connection:
            connection.execute(
                "update executors set last_seen_at = now() - interval '1 hour' where name = %s",
                [name],
            )
        # At once; by themselves they come each minute.
        api.wait(api.run(api.get("/deployments/name/reconcile/every-minute")["id"]))
        api.run(send)
        wait_for(lambda: bool(_told(office, "sensor is down", name)), "its silence", within=150)
        # What only it can do waits for it, and goes on when it is back.
        assert office.json("request", "show", waiting)["status"] == "automation-requested"
        with _agent(office, name, env, tmp_path):
            api.run(send)
            wait_for(lambda: bool(_told(office, "sensor is back", name)), "its return", within=150)
            wait_for(
                lambda: office.json("request", "show", waiting)["status"] == "automation-failed",
                "the request was tried",
                within=150,
            )
        office.stack.cli("executor", "forget", name)

    (down,) = _told(office, "sensor is down", name)
    assert down.encrypted
    for part in (down.text, down.html):
        assert "Start it again" in part
        assert "1" in part
    assert len(_told(office, "sensor is back", name)) == 1
    # To the account and to the profile's own readers, one each, after two looks.
    assert len(_told(office, "Another certificate", location)) == 2


def _site(name: str) -> dict[str, Any]:
    site = {"kind": "nginx", "config": "/nonexistent/nginx.conf", "site": name}
    return {"names": [name], "profile": "office", "target": "office-host", "server": site}


def _told(office: Office, title: str, about: str) -> list[Any]:
    found = list(office.mail.received)
    return [one for one in found if title in one.subject and about in one.text]


def _put_on_record(office: Office, location: str, issued: Issued, address: str) -> None:
    """Make what is served at *address* the certificate that we installed last."""
    done = office.stack.cli("endpoint", "scan", address)
    assert done.returncode == 0, done.stderr
    with psycopg.connect(office.stack.database_url) as connection:
        done_rows = connection.execute(
            "update endpoints set certificate_id = (select id from certificates where"
            " fingerprint = %s) where location = %s",
            [Chain.of(list(issued.chain)).fingerprint, location],
        )
        assert done_rows.rowcount == 1


def _credential(office: Office, folder: Path) -> Path:
    """Make the file on the server; its database has no other address than this machine's."""
    refused = office.stack.cli("executor", "credential", "-o", str(folder / "refused"))
    assert (refused.returncode, (folder / "refused").exists()) == (2, False)
    (folder / "url").write_text(office.stack.database_url)
    path = folder / "agent.credential"
    done = office.stack.cli(
        "executor", "credential", "-o", str(path), "--database-url-file", str(folder / "url")
    )
    assert done.returncode == 0, done.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    return path


@contextmanager
def _proxy(office: Office, root: Authority, folder: Path) -> Iterator[str]:
    """Put nginx before the API, as docs/security.md has it; yield the address."""
    folder.mkdir()
    (folder / "root.pem").write_text(pem(root.certificate))
    own = root.issue("127.0.0.1").write(folder)
    documented = (ROOT / "docs" / "security.md").read_text()
    block = documented.partition("```nginx\n")[2].partition("```")[0]
    for word, here in (
        ("listen 443 ssl", "listen 127.0.0.1:@port@ ssl"),
        ("/etc/certrail/fullchain.pem", str(own)),
        ("/etc/certrail/privkey.pem", str(own)),
        ("http://127.0.0.1:4200", office.stack.api_url.removesuffix("/api")),
    ):
        assert word in block
        block = block.replace(word, here)
    with Nginx.started(folder / "nginx", servers=block) as nginx:
        yield f"https://127.0.0.1:{nginx.port}"


@contextmanager
def _agent(
    office: Office, name: str, env: dict[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    def is_online() -> bool:
        found = json.loads(office.stack.cli("executor", "list", "--json").stdout)
        return any((one["name"], one["status"]) == (name, "online") for one in found)

    command = [sys.executable, "-m", "certrail.cli.main", "worker", "--pool", "agents"]
    with running(
        [*command, "--name", name, "--queue", name],
        log=folder / "agent.log",
        env=env,
        cwd=folder,
        ready=is_online,
        within=60,
    ) as process:
        yield process


def _scan(api: PrefectApi) -> str:
    """Let the regular scan run; return what it said."""
    scan = api.get("/deployments/name/inventory-scan/every-hour")["id"]
    said: list[str] = []

    def completed() -> bool:
        # Cancelled where the run of this hour is under way.
        ended = api.wait(api.run(scan), within=300)
        said.append(ended["state"]["message"] or "")
        return bool(ended["state_type"] == "COMPLETED")

    wait_for(completed, "a scan of the inventory", within=300)
    return said[-1]


def _scans(api: PrefectApi, name: str) -> list[dict[str, Any]]:
    agents = api.get("/deployments/name/executor-scan/agents")["id"]
    return [one for one in api.runs_of(agents) if one["name"] == f"executor-scan {name}"]


def _open_scans(api: PrefectApi, name: str) -> list[str]:
    return [one["id"] for one in _scans(api, name) if one["state_type"] not in FINAL]


def test_each_automation_that_watches_fires(office: Office) -> None:
    """What nobody has ever seen fire does not: late, failed, and nothing at all."""
    automations = {one["name"]: one for one in _automations(office)}
    late, failed, away = (
        automations[f"Certrail: {name}"]
        for name in ("a request is late", "upkeep failed", "report stays away")
    )
    token = uuid4().hex[:8]
    with (
        closing(PrefectApi(office.stack.api_url)) as api,
        api.idle_pool() as pool,
        _hurried(api, late, 10),
        _hurried(api, away, 10),
        _hurried(api, failed, 0),
    ):
        # A pool that no worker serves.
        flow = api.post("/flows/", name="web-server")["id"]
        unserved = api.post(
            "/deployments/",
            name=f"late-{token}",
            flow_id=flow,
            entrypoint="flows.report.report",
            work_pool_name=pool,
        )["id"]
        waiting = api.run(unserved)
        api.patch(f"/flow_runs/{waiting}", name=f"late-{token}")
        upkeep = api.get("/deployments/name/renewal-sweep/every-minute")["id"]
        broken = api.post(
            f"/deployments/{upkeep}/create_flow_run",
            name=f"failed-{token}",
            state={
                "type": "SCHEDULED",
                "state_details": {"scheduled_time": "2099-01-01T00:00:00Z"},
            },
        )["id"]
        state = {"type": "FAILED", "message": "the disk is full"}
        api.post(f"/flow_runs/{broken}/set_state", state=state, force=True)

        def told(title: str, text: str) -> list[Any]:
            return [one for one in office.mails(text) if title in one.subject]

        wait_for(lambda: bool(told("run is late", f"late-{token}")), "late is told", within=200)
        wait_for(lambda: bool(told("run failed", f"failed-{token}")), "failed is told", within=200)
        wait_for(lambda: bool(told("Nothing happened", "report")), "silence is told", within=200)
        api.delete(f"/deployments/{unserved}")

    (mail,) = told("run failed", f"failed-{token}")
    assert "the disk is full" in mail.text
    (mail,) = told("run is late", f"late-{token}")
    assert f"/runs/flow-run/{waiting}" in mail.text
    assert "certrail doctor" in mail.text


@contextmanager
def _hurried(api: PrefectApi, automation: dict[str, Any], seconds: int) -> Iterator[None]:
    """Let an automation be patient for so long only, as an operator sets it in Prefect."""
    kept = {
        key: automation[key]
        for key in ("name", "description", "enabled", "trigger", "actions", "tags")
    }
    api.put(f"/automations/{automation['id']}", kept | {"trigger": _within(kept, seconds)})
    try:
        yield
    finally:
        api.put(f"/automations/{automation['id']}", kept)


def _within(kept: dict[str, Any], seconds: int) -> dict[str, Any]:
    return {key: value for key, value in kept["trigger"].items() if key != "id"} | {
        "within": seconds
    }
