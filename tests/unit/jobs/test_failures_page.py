"""The page that a bulk job leaves in Prefect when endpoints failed."""

from __future__ import annotations

from certrail.job_page import Failure, page
from certrail.store.job_results import Cause
from certrail.store.new_jobs import named_twice

CAUSE = Cause(
    error="InvalidRequest",
    step="Certificate installed",
    count=2,
    different=1,
    example="a.test:443",
    message="line 12: unknown <directive>",
    remedy="Correct it until `nginx -t` accepts it, then retry.",
)
FAILURES = [
    Failure("a.test:443", "http://ui/runs/flow-run/1", "Certificate installed: line|12"),
    Failure("*.b.test:443", None, "Certificate installed: line 12"),
]


def test_each_cause_has_its_remedy_and_each_endpoint_its_run() -> None:
    """Whoever opens it need not open each run to learn what to correct, nor search for one."""
    text = page("spring", "http://ui/runs/flow-run/0", "1 of 3 successful", [CAUSE], FAILURES)

    assert text.startswith("# Job [spring](http://ui/runs/flow-run/0): 1 of 3 successful\n")
    assert (
        "**2 endpoints failed in Certificate installed, a.test:443 for example:** "
        r"line 12: unknown \<directive\>" in text
    )
    assert "**What to do:** Correct it until `nginx -t` accepts it, then retry." in text
    assert "certrail job retry spring --wait\n" in text
    lines = text.splitlines()
    assert r"- [a.test:443](http://ui/runs/flow-run/1): Certificate installed: line\|12" in lines
    assert r"- \*.b.test:443: Certificate installed: line 12" in lines


def test_commands_name_a_job_whose_name_holds_blanks_as_one_word() -> None:
    """They are pasted as they are."""
    text = page("spring renewal", None, "2 failed", [CAUSE], FAILURES)

    assert "certrail job retry 'spring renewal' --wait\n" in text
    assert "certrail endpoint list --job 'spring renewal' --status automation-failed\n" in text


def test_after_a_retry_that_let_all_through_nothing_is_told_to_be_corrected() -> None:
    """The page that a retry finds was written by the run before."""
    text = page("spring", None, "3 of 3 successful, 0 failed", [], [])

    assert text.startswith("# Job spring: 3 of 3 successful, 0 failed\n")
    assert "retry" not in text
    assert "None of its endpoints is left that failed" in text


def test_a_page_stays_one_that_a_browser_shows_at_once() -> None:
    """Of thousands, the first are named and the others counted."""
    many = [Failure(f"h{n}.test:443", None, "no") for n in range(201)]

    text = page("big", None, "failed", [CAUSE], many)

    assert "- h199.test:443: no\n" in text
    assert "h200.test" not in text
    assert "And 1 endpoint more" in text


def test_the_remedy_for_a_name_that_is_taken_can_be_pasted_too() -> None:
    """A name with a blank would be two words."""
    assert "`certrail job show 'spring renewal'`" in named_twice("spring renewal").remedy
