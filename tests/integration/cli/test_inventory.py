"""`certrail endpoint` and `certrail connector` against a running installation."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Shell

ROW = [
    "location",
    "names",
    "common_name",
    "profile",
    "workflow",
    "target",
    "server",
    "automation_status",
    "job_name",
    "request_id",
    "not_after",
    "days_left",
    "issuer",
    "fingerprint",
    "serial",
    "key",
    "tags",
    "last_success_at",
    "next_renewal_at",
    "security_findings",
    "flow_run_url",
    "risks",
    "step",
    "ca",
    "lifetime_days",
    "renewal_pause",
]


def test_rows_have_exactly_the_documented_keys(shell: Shell) -> None:
    """Other programs read them."""
    known = ",".join(shell.location(name) for name in ("www", "bad", "cancelled", "wait"))
    rows = shell.json("endpoint", "list", "--filter", f"location={known}")

    assert [list(row) for row in rows] == [ROW] * 4
    assert rows[0]["server"] == "nginx"
    header = shell("endpoint", "list", "--csv").stdout.splitlines()[0]
    assert header.split(",") == ROW


def test_options_of_the_list(shell: Shell) -> None:
    """Filters, columns, order and limit work together."""
    location = shell.location("www")

    table = shell(
        "endpoint", "list", "--target", "cli-web01", "--filter", "location~cli.example",
        "--columns", "location,profile", "--add-column", "job", "--sort", "-location",
        "--limit", "2",
    ).stdout.splitlines()  # fmt: skip

    assert table[0].split() == ["Location", "Profile", "Job", "name"]
    assert [line.split()[0] for line in table[1:]] == [location, shell.location("wait")]
    page = ["endpoint", "list", "--target", "cli-web01", "--filter", "location~cli.example"]
    first = shell.json(*page, "--sort", "-location", "--limit", "1")
    second = shell.json(*page, "--sort", "-location", "--after", first[0]["location"])
    assert [row["location"] for row in first + second] == [
        row["location"] for row in shell.json(*page, "--sort", "-location")
    ]
    assert shell.json("endpoint", "list", "--tag", "nothing") == []
    assert "no endpoint is like that" in shell("endpoint", "list", "--tag", "nothing").stdout
    for wrong in (
        ["--columns", "locaton"],
        ["--sort", "x"],
        ["--after", "nowhere.cli.example.test:1"],
        ["--filter", "x=1"],
        ["--json", "--csv"],
    ):
        assert "Remedy" in shell("endpoint", "list", *wrong, code=2).stderr


def test_one_endpoint(shell: Shell) -> None:
    """The list's keys, and certificate, automation and request beside them."""
    location = shell.location("wait")

    found = shell.json("endpoint", "show", location)

    assert set(found) > set(ROW)
    assert found["automation"]["settings"]["ca"] == "cli-pebble"
    assert found["automation"]["settings"]["trust_pem"] is True
    assert found["server_settings"]["site"] == "wait.cli.example.test"
    assert found["not_looked_at"] is None
    assert "profile            cli-public-web" in shell("endpoint", "show", location).stdout


def test_a_csv_file_is_imported_whole_or_not_at_all(shell: Shell, tmp_path: Path) -> None:
    """One dangling name and nothing is there; what the file does not say stays."""
    path = tmp_path / "endpoints.csv"
    path.write_text(
        "location,names,profile,target,server.kind,server.site,tags\n"
        "I1.cli.example.test:443,i1.cli.example.test i1b.cli.example.test,cli-public-web,"
        "cli-web01,nginx,i1,imported;new\n"
        "i2.cli.example.test:443,,cli-publi-web,,,,\n"
    )
    said = shell("endpoint", "import", str(path), code=2).stderr
    assert f"{path}:3: profile: there is no profile 'cli-publi-web'" in said
    shell("endpoint", "show", "i1.cli.example.test:443", code=2)
    path.write_text(path.read_text().replace("cli-publi-web", "cli-public-web"))
    assert "2" in shell("endpoint", "import", str(path), "--dry-run").stdout
    shell("endpoint", "show", "i1.cli.example.test:443", code=2)

    assert (
        "endpoint i1.cli.example.test:443 created" in shell("endpoint", "import", str(path)).stdout
    )

    (row,) = shell.json("endpoint", "list", "--tag", "imported")
    assert row["names"] == ["i1.cli.example.test", "i1b.cli.example.test"]
    assert (row["profile"], row["target"], row["server"]) == (
        "cli-public-web",
        "cli-web01",
        "nginx",
    )
    path.write_text("location,tags\ni1.cli.example.test:443,imported other\n")
    assert (
        "tags [imported, new] → [imported, other]" in shell("endpoint", "import", str(path)).stdout
    )
    (row,) = shell.json("endpoint", "list", "--tag", "imported")
    assert row["profile"] == "cli-public-web"
    exported = shell("endpoint", "list", "--tag", "imported", "--csv").stdout
    assert next(csv.DictReader(io.StringIO(exported)))["tags"] == "imported other"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "there is no column `location`"),
        ("place\nx\n", "unknown column 'place'"),
        ("location\na.test:443\na.test:443\n", ":3: location: a.test:443 is there twice"),
        ("location\nnonsense\n", ":2: location: 'nonsense' is not host:port"),
        ("location\na.test:443,b\n", ":2: 2 cells, but 1 headings"),
        ("location,target\na.test:443,nothing\n", ":2: target: there is no connector 'nothing'"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_told_with_its_line(
    content: str, told: str, shell: Shell, tmp_path: Path
) -> None:
    """Spreadsheets have a thousand lines."""
    path = tmp_path / "f.csv"
    path.write_text(content)

    assert told in shell("endpoint", "import", str(path), code=2).stderr


def test_what_is_served_is_looked_at(shell: Shell) -> None:
    """A known location is reached as configured; what is found is in the list at once."""
    location = shell.location("cancelled")

    (seen,) = shell.json("endpoint", "scan", location)

    assert seen["location"] == location
    assert seen["reachable"]
    (row,) = shell.json("endpoint", "list", "--filter", f"location={location}")
    assert row["fingerprint"] == seen["certificate"]["fingerprint"]
    assert {finding["code"] for finding in row["security_findings"]} == {
        finding["code"] for finding in seen["findings"]
    }
    nobody = shell("endpoint", "scan", "127.0.0.1:9", code=1)
    assert "1 of 1 address did not answer" in nobody.stdout
    assert "exit" not in nobody.stderr


def test_the_sites_of_a_target_are_found(shell: Shell) -> None:
    """Those that are known keep their name, and are not offered as new ones."""
    known = {shell.location(name) for name in ("www", "bad", "wait")}

    # Servers of other tests run on this machine too: looked at, but not kept.
    rows = shell.json("endpoint", "scan", "--target", "cli-web01", "--dry-run")
    offered = shell("endpoint", "scan", "--target", "cli-web01", "--yaml").stdout

    assert {row["location"] for row in rows} >= known
    assert not any(row["added"] for row in rows)
    assert not [location for location in known if f"location: {location}\n" in offered]
    assert (
        "there is no connector nothing"
        in shell("endpoint", "scan", "--target", "nothing", code=2).stderr
    )
    assert "serves no sites" in shell("endpoint", "scan", "--target", "cli-ns", code=2).stderr
    assert "give addresses or --target" in shell("endpoint", "scan", code=2).stderr


def test_connectors_are_checked_and_the_result_is_kept(shell: Shell) -> None:
    """What does not answer is known before a request needs it."""
    broken = {"name": "cli-broken", "type": "host-ssh", "host": "127.0.0.1", "port": 9}
    broken |= {"username": "root", "password": "env:NOTHING", "host_key": "ssh-ed25519 AAAA"}
    shell("apply", "-f", str(shell.write("broken.yaml", {"connectors": [broken]})))

    found = shell.json("connector", "check", "cli-pebble", "cli-ns", "cli-web01")
    assert [(one["name"], one["ok"]) for one in found] == [
        ("cli-pebble", True),
        ("cli-ns", True),
        ("cli-web01", True),
    ]
    (bad,) = shell.json("connector", "check", "cli-broken", code=1)

    assert bad["cause"]
    assert bad["remedy"]
    listed = {one["name"]: one for one in shell.json("connector", "list")}
    assert listed["cli-pebble"]["check_ok"] is True
    assert listed["cli-broken"]["check_ok"] is False
    assert listed["cli-broken"]["check_message"] == bad["cause"]
    assert "cli-broken" in shell("connector", "list").stdout
    assert "there is no connector nope" in shell("connector", "check", "nope", code=2).stderr


def test_a_connector_is_added_without_a_file(shell: Shell) -> None:
    """With --set nothing is asked; a mistake leaves nothing behind."""
    types = {one["type"]: one for one in shell.json("connector", "add", "--list-types")}
    assert types["ca-acme"]["kind"] == "certificate authority"
    secrets = [field["name"] for field in types["ca-acme"]["fields"] if field["secret"]]
    assert secrets == ["eab_hmac_key"]
    wrong = ["connector", "add", "ca-acme", "cli-added", "--set", "directory_url=ftp://x"]
    assert "directory_url: " in shell(*wrong, code=2).stderr
    good = [*wrong[:-1], "directory_url=https://127.0.0.1:9/dir"]

    assert "connector cli-added created" in shell(*good).stdout

    assert "there is a connector cli-added already" in shell(*good, code=2).stderr
    assert (
        "is no name"
        in shell("connector", "add", "host-local", "A_B", "--set", "sudo=true", code=2).stderr
    )
    unknown = ["connector", "add", "ca-acme", "cli-other", "--set", "x=1"]
    assert "no setting 'x'" in shell(*unknown, code=2).stderr
    assert "no type of connector" in shell("connector", "add", "ca-x", "cli-x", code=2).stderr
    names = [one["name"] for one in shell.json("connector", "list")]
    assert names.count("cli-added") == 1


def test_a_view_is_saved_listed_used_and_deleted(shell: Shell) -> None:
    """What people look for every day they want under a name."""
    said = shell(
        "view", "save", "cli-two", "--filter", "location~cli.example", "--target", "cli-web01",
        "--filter", f"location={shell.location('www')},{shell.location('bad')}",
        "--sort", "-location", "--columns", "location,profile", "--describe", "two of them",
    ).stdout  # fmt: skip
    assert said == "view cli-two saved: 2 endpoints at present\n"

    table = shell("endpoint", "list", "--view", "cli-two").stdout.splitlines()
    assert table[0].split() == ["Location", "Profile"]
    assert [line.split()[0] for line in table[1:]] == [
        shell.location("www"),
        shell.location("bad"),
    ]
    (row,) = shell.json("endpoint", "list", "--view", "cli-two", "--filter", "location~bad")
    assert row["location"] == shell.location("bad")
    listed = {one["name"]: one for one in shell.json("view", "list")}
    assert listed["cli-two"]["endpoints"] == 2
    assert listed["cli-two"]["filters"][-1] == "target=cli-web01"
    assert listed["failed"]["system"] is True
    assert "two of them" in shell("view", "list").stdout

    for wrong in (
        ["save", "failed", "--tag", "x"],
        ["save", "cli-x", "--sort", "nothing"],
        ["save", "cli-x", "--filter", "nothing"],
        ["delete", "failed"],
        ["delete", "cli-nothing"],
    ):
        assert "Remedy" in shell("view", *wrong, code=2).stderr
    shell("view", "delete", "cli-two")
    assert (
        "there is no view cli-two" in shell("endpoint", "list", "--view", "cli-two", code=2).stderr
    )


def test_the_dashboard(shell: Shell, tmp_path: Path) -> None:
    """What an operator opens first: figures, each with the call that opens its rows."""
    shown = shell.json("dashboard")

    coverage = {figure["code"]: figure for figure in shown["coverage"]}
    assert coverage["managed"]["count"] == len(
        shell.json("endpoint", "list", "--filter", coverage["managed"]["filter"])
    )
    assert {"needs_attention", "security", "in_flight", "readiness", "executors"} <= set(shown)
    assert "Needs attention" in shell("dashboard").stdout
    shell("dashboard", "--html", str(tmp_path / "d.html"))
    assert (tmp_path / "d.html").read_text().startswith("<!doctype html>")
    assert "Remedy" in shell("dashboard", "--html", "/nowhere/d.html", code=2).stderr


def test_reports_are_made_saved_and_deleted(shell: Shell, tmp_path: Path) -> None:
    """Lists go to people who have no command line."""
    which = ["--kind", "endpoints", "--target", "cli-web01"]
    rows = list(csv.DictReader(io.StringIO(shell("report", "run", *which).stdout)))
    assert {row["target"] for row in rows} == {"cli-web01"}
    for ending, begin in (("pdf", b"%PDF"), ("xlsx", b"PK"), ("html", b"<!doctype")):
        path = tmp_path / f"report.{ending}"
        shell("report", "run", *which, "-o", str(path))
        assert path.read_bytes().startswith(begin)
    assert shell("report", "run", "unmanaged").stdout.startswith("location,common_name")

    shell("report", "save", "cli-monday", *which, "--format", "json", "--cron", "0 6 * * mon")
    (saved,) = [one for one in shell.json("report", "list") if one["name"] == "cli-monday"]
    assert saved["next_at"].endswith("T06:00:00Z")
    assert '"kind": "endpoints"' in shell("report", "run", "cli-monday").stdout
    for wrong in (
        ["run"],
        ["run", "cli-monday", "--kind", "audit"],
        ["run", "cli-nothing"],
        ["run", "--kind", "job"],
        ["run", "--kind", "audit", "-o", "/nowhere/x.csv"],
        ["save", "cli-x", "--cron", "often"],
        ["delete", "cli-nothing"],
    ):
        assert "Remedy" in shell("report", *wrong, code=2).stderr
    shell("report", "delete", "cli-monday")
