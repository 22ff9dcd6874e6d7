"""The page that a request leaves in Prefect: what it says to somebody at three in the morning."""

from __future__ import annotations

from certrail.request_page import page
from certrail.tracker import Status
from tests.support.shown_requests import shown_request


def test_a_failure_comes_with_cause_remedy_and_what_to_type() -> None:
    """Nobody should have to look for the commands, or for what they need to be given."""
    text = page(shown_request(Status.AUTOMATION_FAILED, cause="nginx -t failed"), [])

    assert text.startswith("# renew www.example.test:443: automation failed\n")
    assert "**Step 4, Certificate installed, failed:** nginx -t failed" in text
    assert "**What to do:** Correct the file, then retry. A retry alone won't help." in text
    assert "certrail request retry 3f2a9c41 --wait\n" in text
    assert "certrail endpoint show www.example.test:443\n" in text
    assert "certrail connector check le web01 ns\n" in text


def test_what_others_wrote_cannot_change_the_page() -> None:
    """A CA's or a device's words are shown; they make no table cell, link or tag."""
    cause = "no <script>|[click](http://evil)\nnext *line*"

    text = page(shown_request(Status.AUTOMATION_FAILED, cause=cause), [])

    assert r"no \<script\>\|\[click\](http://evil) next \*line\*" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 4. ")]
    assert row.replace(r"\|", "").count("|") == 4
    assert r"\*.example.test" in text
    code = page(
        shown_request(Status.AUTOMATION_FAILED, cause="add `server_name a|b;` there_now"), []
    )
    assert r"add `server_name a\|b;` there\_now" in code


def test_the_requests_before_it_are_a_click_away() -> None:
    """Whether it ever worked, and since when it does not, is the second question."""
    view = shown_request(Status.CANCELLED)
    before = shown_request(Status.AUTOMATION_SUCCESSFUL, run="run-0")

    text = page(view, [before])

    assert "- [renew www.example.test:443](http://ui/run-0), automation successful" in text
    assert "certrail request retry" in text
    assert "certrail request retry" not in page(before, [])
