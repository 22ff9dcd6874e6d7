"""Reports of every kind in every format, saved and on schedule."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import zipfile
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import pytest
from sqlalchemy import insert, select

from certrail.errors import InvalidRequest, NotFound, Rejected
from certrail.notify import drain
from certrail.reports import kinds, making
from certrail.reports.formats import FORMATS, rendered
from certrail.reports.kinds import KINDS
from certrail.reports.report import Chart, Report
from certrail.reports.tables import Wanted
from certrail.store import notifications, outbox, reports, steps, views
from certrail.store.database import transaction
from certrail.store.reports import SavedReport
from certrail.store.schema import executors, jobs
from certrail.store.schema import outbox as events_table
from certrail.store.views import View
from certrail.tracker import Status
from tests.integration.store.conftest import Inventory, inventory, issue

__all__ = ["inventory"]

NOW = datetime.now(UTC)
EVIL = '=HYPERLINK("http://x")<script>alert(1)</script>'
SHEET = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


@pytest.fixture
def fleet(inventory: Inventory) -> Inventory:
    """Some endpoints, one with a name that a stranger chose, and a failed request of a job."""
    for number in range(3):
        location = f"h{number}.test:443"
        inventory.endpoint(location, profile="p", target="web", tags=["shop"] if number else [])
        inventory.certificate(location, issue(f"h{number}.test", days=5 + 30 * number))
        inventory.set(location, next_renewal_at=NOW + timedelta(days=number + 1))
    inventory.endpoint("evil.test:443")
    inventory.certificate("evil.test:443", issue("evil.test", issuer=EVIL))
    inventory.set(
        "evil.test:443",
        observed={"findings": [{"code": "weak-key", "message": EVIL, "severity": "failure"}]},
    )
    with transaction() as connection:
        job_id = connection.execute(
            insert(jobs).values(name="spring", action="renew", status="failed").returning(jobs.c.id)
        ).scalar_one()
        connection.execute(
            insert(executors).values(
                pool="agents", name="edge", version="1", host="h", started_at=NOW, last_seen_at=NOW
            )
        )
    inventory.connector("mail", "notifier-smtp")
    with transaction() as connection:
        notifications.keep_settings(connection, {"email": ["zoë@example.test"]})
        outbox.put(connection, "certrail.certificate.expired", "h0.test:443")
    drain.route(NOW)
    made = inventory.request("h0.test:443", job_id=job_id)
    steps.begin(made.id, 1, 1, uuid4())
    steps.fail(made.id, 1, Rejected(EVIL, code="rateLimited"), final=True)
    inventory.request("h1.test:443", status=Status.AUTOMATION_SUCCESSFUL, ended_at=NOW)
    return inventory


def one(kind: str) -> Report:
    """Return the report of that kind on the fleet."""
    return kinds.build(kind, Wanted(job="spring"))


def test_each_kind_has_its_rows(fleet: Inventory) -> None:
    """A report that is empty where something happened is not believed again."""
    found = {kind: one(kind) for kind in KINDS}

    assert {kind: len(report.rows) for kind, report in found.items() if kind != "audit"} == {
        "endpoints": 4,
        "requests": 2,
        "failures": 1,
        "job": 1,
        "upcoming": 3,
        "expiring": 1,
        "security": 5,
        "executors": 1,
        "notifications": 1,
    }
    assert len(found["audit"].rows) >= 4
    (told,) = found["notifications"].rows
    assert (told["event"], told["recipient"]) == (
        "certrail.certificate.expired",
        "zoë@example.test",
    )
    (failure,) = found["failures"].rows
    assert (failure["title"], failure["error"]) == ("ACME account created", "Rejected:rateLimited")
    (member,) = found["job"].rows
    assert member["location"] == "h0.test:443"
    assert member["step_1_status"] == "failed"
    assert member["step_1_s"] >= 0
    codes = {row["code"] for row in found["security"].rows}
    assert codes == {"weak-key", "key-reused"}
    for report in found.values():
        assert all(key in row for row in report.rows for key, _ in report.columns), report.kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_format(kind: str, fleet: Inventory) -> None:
    """Whoever asks for PDF must not find out that this one report has none."""
    report = one(kind)
    begin = {"xlsx": b"PK", "pdf": b"%PDF", "html": b"<!doctype html>", "json": b"{"}

    for format_ in FORMATS:
        content = rendered(report, format_)
        assert content.startswith(begin.get(format_, b"")), format_
        if format_ == "html":
            assert b"<script" not in content
    table = list(csv.reader(io.StringIO(rendered(report, "csv").decode(), newline="")))
    assert len(table) == len(report.rows) + 1
    assert len(json.loads(rendered(report, "json"))["rows"]) == len(report.rows)


def sheet(content: bytes, name: str) -> ElementTree.Element:
    """Return one part of a workbook."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        return ElementTree.fromstring(book.read(name))


def test_no_cell_is_a_formula() -> None:
    """A certificate's name must not run in the spreadsheet of who reads the report."""
    wicked = [EVIL, "+1+1", "-2", "@SUM(A1)", "\t=1", "http://x.test", "<b>", "plain"]
    report = Report(
        "k",
        "t",
        NOW,
        [("a", "A"), ("n", "N")],
        [{"a": text, "n": -number} for number, text in enumerate(wicked)],
        [Chart("By name", [(EVIL, 3)])],
    )

    rows = list(csv.reader(io.StringIO(rendered(report, "csv").decode(), newline="")))[1:]
    assert not [row for row in rows if row[0].startswith(("=", "+", "-", "@", "\t"))]
    assert [row[1] for row in rows] == [str(-number) for number in range(len(wicked))]
    content = rendered(report, "xlsx")
    cells = sheet(content, "xl/worksheets/sheet1.xml")
    assert not cells.findall(f".//{SHEET}f")
    assert not cells.findall(f".//{SHEET}hyperlink")
    strings = [node.text for node in sheet(content, "xl/sharedStrings.xml").iter(f"{SHEET}t")]
    assert EVIL in strings
    html = rendered(report, "html").decode()
    assert "<script" not in html
    assert "<b>" not in html


def test_charts_are_in_spreadsheet_page_and_paper(fleet: Inventory) -> None:
    """A picture says at once whether it is one bar or twenty."""
    report = one("endpoints")

    with zipfile.ZipFile(io.BytesIO(rendered(report, "xlsx"))) as book:
        assert "xl/charts/chart1.xml" in book.namelist()
    assert rendered(report, "html").decode().count("<svg") == len(report.charts)
    assert report.charts
    # What is drawn on paper: each bar is a filled rectangle more.
    bars = sum(len(chart.points) for chart in report.charts)
    bare = filled(rendered(replace(report, charts=()), "pdf"))
    assert filled(rendered(report, "pdf")) == bare + bars


def filled(paper: bytes) -> int:
    """Count the filled rectangles on the pages of a PDF (ISO 32000-1, section 8.5)."""
    found = 0
    for part in re.findall(rb"stream\r?\n(.*?)endstream", paper, re.DOTALL):
        page = zlib.decompress(base64.a85decode(part.strip().removesuffix(b"~>")))
        found += len(re.findall(rb" re f\b", page))
    return found


def test_letters_that_paper_lacks_do_not_stop_the_report() -> None:
    """Names come in all scripts."""
    report = Report("k", "証明書 — ünïcode", NOW, [("a", "A")], [{"a": "日本 \x00 ü"}])

    assert rendered(report, "pdf").startswith(b"%PDF")
    assert "日本" in rendered(report, "html").decode()


def test_every_view_is_a_report(fleet: Inventory) -> None:
    """What people look at on the screen they want as a file too."""
    views.save("shop", View(("tag=shop",), columns=("location", "tags")), "me")

    report = making.build(making.named("shop"))

    assert [row["location"] for row in report.rows] == ["h1.test:443", "h2.test:443"]
    assert [key for key, _ in report.columns] == ["location", "tags"]
    assert making.build(making.named("unmanaged")).rows[0]["location"] == "evil.test:443"
    with pytest.raises(NotFound) as caught:
        making.named("shpo")
    assert "shop" in caught.value.remedy


def test_a_saved_report_is_made_and_told(fleet: Inventory, tmp_path: Path) -> None:
    """Its file is whole or not there, and those who want to hear of it do."""
    reports.save(SavedReport("daily", "endpoints", "xlsx", View(("tag=shop",))), "me")

    made = making.make_now("daily", tmp_path)

    assert made is not None
    assert made.path.read_bytes().startswith(b"PK")
    assert [path.name for path in tmp_path.iterdir()] == [made.path.name]
    saved = reports.find("daily")
    assert saved is not None
    assert saved.made_at is not None
    with transaction() as connection:
        events = connection.execute(
            select(events_table.c.payload).where(events_table.c.event == "certrail.report.ready")
        ).scalars()
        assert [payload["rows"] for payload in events] == [2]


def test_of_two_that_make_a_report_at_once_one_tells_of_it(fleet: Inventory) -> None:
    """Two workers may take runs of the same minute."""
    reports.save(SavedReport("daily", "executors"), "me")
    read = reports.find("daily")
    assert read is not None

    told = [reports.made(read, NOW, rows=1, where="f.csv", content=b"x") for _ in range(2)]

    assert told == [True, False]


def test_a_report_on_what_is_gone_says_so(fleet: Inventory, tmp_path: Path) -> None:
    """Its run fails with the reason, rather than mail nothing."""
    reports.save(SavedReport("a", "job", job="gone"), "me")

    with pytest.raises(NotFound, match="gone"):
        making.make_now("a", tmp_path)
    with pytest.raises(NotFound, match="nothere"):
        making.make_now("nothere", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        SavedReport("a b", "endpoints"),
        SavedReport("v", "endpoints", cron="every monday"),
        SavedReport("v", "endpoints", cron="0 0 31 2 *"),
        SavedReport("v", "endpoints", cron="0 6 * * *", timezone="Mars/Olympus"),
        SavedReport("v", "endpoints", view=View(("nonsense",))),
    ],
    ids=["name", "cron", "never", "zone", "filter"],
)
def test_what_cannot_be_made_is_not_saved(wrong: SavedReport, inventory: Inventory) -> None:
    """It is found when it is saved, not on a Monday at six."""
    with pytest.raises(InvalidRequest):
        reports.save(wrong, "me")

    assert reports.every() == []


def test_a_clock_that_changes(inventory: Inventory) -> None:
    """Six o'clock stays six o'clock in summer."""
    report = SavedReport("v", "endpoints", cron="0 6 * * *", timezone="Europe/Berlin")

    assert report.next_at(datetime(2027, 3, 27, 12, tzinfo=UTC)) == datetime(
        2027, 3, 28, 4, tzinfo=UTC
    )
    assert report.next_at(datetime(2027, 1, 1, 12, tzinfo=UTC)) == datetime(
        2027, 1, 2, 5, tzinfo=UTC
    )


def test_a_report_on_a_job_needs_its_name(inventory: Inventory) -> None:
    """Otherwise it would be on all of them."""
    with pytest.raises(InvalidRequest):
        kinds.build("job", Wanted())
    with pytest.raises(NotFound):
        kinds.build("job", Wanted(job="nothing"))
