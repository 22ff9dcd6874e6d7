"""When a certificate is renewed, and why: one line for each rule."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certrail.configuration.plan import Hold
from certrail.configuration.profile import Renew
from certrail.maintenance import Calendar
from certrail.renewal.due import Code, Facts, Held, Suggestion, Terms, decide, is_weak
from certrail.renewal.hold import Why, install_at
from certrail.renewal.moments import drawn, moment_in, pause_after, within
from certrail.renewal.pause import Past, PauseCode, Undone

START = datetime(2029, 1, 1, tzinfo=UTC)
LIFE = timedelta(days=47)
DAY = timedelta(days=1)
OPEN = Calendar()
NAMES = frozenset({"a.test"})
TERMS = Terms(NAMES, "ca", "", "ecdsa-p256")
HELD = Held("f" * 64, NAMES, "ECDSA P-256", "Test CA", START, START + LIFE)
FACTS = Facts(HELD, TERMS, TERMS)
NIGHT = Calendar.model_validate({"windows": [{"start": "02:00", "end": "05:00"}]})
ARI = Suggestion(START + 20 * DAY, START + 22 * DAY, "https://ca.test/why")


def held(**changes: Any) -> Facts:
    return replace(FACTS, held=replace(HELD, **changes))


def failed_at(days: float, failures: int = 1) -> Past:
    return Past("failed", START + days * DAY, failures)


REASONS = [
    ("by its lifetime", FACTS, {}, Code.DUE),
    ("the CA suggests", replace(FACTS, suggestion=ARI), {}, Code.ARI),
    ("the CA is not asked", replace(FACTS, suggestion=ARI), {"use_ari": False}, Code.DUE),
    ("a name more", replace(FACTS, wanted=replace(TERMS, names=NAMES | {"b.test"})), {},
     Code.NAMES),
    ("a name less", replace(FACTS, wanted=replace(TERMS, names=frozenset({"b.test"})),
                            ordered=replace(TERMS, names=frozenset({"b.test", "a.test"}))), {},
     Code.NAMES),
    ("a name of the CA's own", held(names=NAMES | {"www.a.test"}), {}, Code.DUE),
    ("another CA", replace(FACTS, wanted=replace(TERMS, ca="other")), {}, Code.PROFILE),
    ("another profile of the CA", replace(FACTS, wanted=replace(TERMS, ca_profile="tls")), {},
     Code.PROFILE),
    ("another key", replace(FACTS, wanted=replace(TERMS, key_algorithm="rsa-3072")), {},
     Code.PROFILE),
    ("not known how it was ordered", replace(FACTS, ordered=None), {}, Code.DUE),
    ("a weak key", held(key_kind="RSA 1024"), {}, Code.WEAK_KEY),
    ("a distrusted CA", held(issuer="TEST CA"), {"distrusted_issuers": ["Test CA"]},
     Code.DISTRUSTED),
    ("revoked", held(revoked_at=START), {}, Code.REVOKED),
    ("revoked counts more than weak", held(revoked_at=START, key_kind="RSA 1024"), {},
     Code.REVOKED),
    ("expired", held(not_after=START + DAY), {}, Code.EXPIRED),
    ("gone", replace(FACTS, is_gone=True), {}, Code.MISSING),
    ("never had one", replace(FACTS, held=None), {}, Code.NONE),
    ("never had one, to be enrolled", replace(FACTS, held=None), {"enroll": True}, Code.MISSING),
    ("switched off", replace(FACTS, auto=False), {}, Code.OFF),
    ("called off", replace(FACTS, cancelled_by="ann@host"), {}, Code.HELD),
    ("called off, though revoked", replace(held(revoked_at=START), cancelled_by="ann"), {},
     Code.HELD),
    ("already tried", replace(held(key_kind="RSA 1024"), obtained_for="renewal-weak-key"), {},
     Code.DUE),
    ("already tried, then something failed",
     replace(held(key_kind="RSA 1024"), obtained_for="renewal-weak-key", past=failed_at(9)), {},
     Code.DUE),
]  # fmt: skip


@pytest.mark.parametrize(("case", "facts", "renew", "code"), REASONS, ids=lambda v: str(v)[:30])
def test_the_reason_of_a_renewal(case: str, facts: Facts, renew: Any, code: Code) -> None:
    """People read the reason before they read anything else."""
    found = decide(facts, Renew.model_validate(renew), OPEN, START + 10 * DAY)
    assert found.code is code, case
    assert found.message
    assert (found.at is not None) is code.renews


def test_by_lifetime_it_is_spread_before_the_moment() -> None:
    """Certificates that were issued together must not be renewed together."""
    last = START + LIFE * 0.67
    seen = set()
    for number in range(500):
        one = decide(held(fingerprint=f"{number:064d}"), Renew(), OPEN, START)
        assert one.at is not None
        assert last - LIFE * 0.1 <= one.at <= last
        seen.add(one.at.date())
    assert len(seen) == 6  # 4.7 days


def test_a_certificate_of_a_day_is_renewed_within_the_day() -> None:
    """As internal CAs issue them: everything goes by its share, and so does the next try."""
    begins, ends = START - timedelta(minutes=1), START + DAY
    facts = held(not_before=begins, not_after=ends)

    found = decide(facts, Renew(), OPEN, START)
    failed = replace(facts, past=failed_at(0.7, failures=3))
    again = decide(failed, Renew(), OPEN, START + 0.7 * DAY).at

    assert found.at is not None
    assert timedelta(hours=13.5) < found.at - begins < timedelta(hours=16.2)
    assert found.deadline == begins + (ends - begins) * 0.9
    assert again is not None
    assert again - (START + 0.7 * DAY) <= 0.3 * DAY / 6


def test_the_moment_is_drawn_once() -> None:
    """A fresh draw at each look could put a renewal off for ever."""
    facts = replace(FACTS, suggestion=ARI)
    first = decide(facts, Renew(), OPEN, START).at
    assert first is not None
    assert ARI.start <= first < ARI.end
    assert all(decide(facts, Renew(), OPEN, START + n * DAY).at == first for n in range(20))


@pytest.mark.parametrize(
    ("case", "suggestion", "now", "expected"),
    [
        ("moved into the past: at once", Suggestion(START, START + DAY), 10, 10),
        ("far behind the deadline: at the deadline",
         Suggestion(START + 60 * DAY, START + 61 * DAY), 1, 47 * 0.9),
    ],
)  # fmt: skip
def test_the_window_of_the_ca(
    case: str, suggestion: Suggestion, now: float, expected: float
) -> None:
    """A mass revocation is told by a window in the past; a mistake by one after the end."""
    found = decide(replace(FACTS, suggestion=suggestion), Renew(), OPEN, START + now * DAY)
    assert found.at == START + expected * DAY, case


def test_the_moment_lies_in_both_windows_where_they_meet() -> None:
    """Then the certificate is obtained and installed in one go."""
    for number in range(50):
        facts = replace(held(fingerprint=f"{number:064d}"), suggestion=ARI)
        at = decide(facts, Renew(), NIGHT, START).at
        assert at is not None
        assert NIGHT.is_open(at)
        assert ARI.start <= at < ARI.end
    weekend = Calendar.model_validate(
        {"windows": [{"days": ["sat"], "start": "02:00", "end": "03:00"}]}
    )
    apart = (START + 20 * DAY, START + 20 * DAY + timedelta(hours=3))  # a Sunday
    assert apart[0] <= within(apart, "f", weekend) < apart[1]


def test_after_failures_it_is_tried_again_more_often_near_the_end() -> None:
    """Escalation by time left, not by attempt count."""
    hour = timedelta(hours=1)
    assert pause_after(1, 30 * DAY) == hour
    assert pause_after(3, 30 * DAY) == 4 * hour
    assert pause_after(40, 30 * DAY) == DAY
    assert pause_after(40, 6 * hour) == hour
    assert pause_after(1, timedelta(seconds=60)) == timedelta(seconds=10)
    assert pause_after(1, -DAY) == hour
    failed = replace(FACTS, past=failed_at(33, failures=2))
    found = decide(failed, Renew(), OPEN, START + 33 * DAY)
    assert found.at == START + 33 * DAY + 2 * hour


BY_HAND = "the request before it (asked by ann@host)"
HOUR = timedelta(hours=1)

PAUSES = [
    ("failed for the policy", failed_at(40, 2), None, PauseCode.FAILED, 2 * HOUR,
     "its renewal failed on 2029-02-10 00:00 UTC, 2 attempts in all"),
    ("failed for a person", Past("failed", START + 40 * DAY, what=BY_HAND), None,
     PauseCode.FAILED, HOUR, f"{BY_HAND} failed on 2029-02-10 00:00 UTC"),
    ("nobody approved it", Past("unanswered", START + 40 * DAY, 5), None, PauseCode.UNANSWERED,
     16 * HOUR, "nobody approved the request before it in time, by 2029-02-10 00:00 UTC"),
    ("called off", None, Undone(START + 40 * DAY, BY_HAND), PauseCode.UNDONE, HOUR,
     f"{BY_HAND} was called off on 2029-02-10 00:00 UTC"),
    ("called off: what failed often before waits longer", failed_at(40, 4),
     Undone(START + 40 * DAY, BY_HAND), PauseCode.FAILED, 8 * HOUR,
     "its renewal failed on 2029-02-10 00:00 UTC, 4 attempts in all"),
    ("called off after it failed once", failed_at(39.99), Undone(START + 40 * DAY, BY_HAND),
     PauseCode.UNDONE, HOUR, f"{BY_HAND} was called off on 2029-02-10 00:00 UTC"),
    ("over", failed_at(39.5), Undone(START + 39.5 * DAY, BY_HAND), None, timedelta(), ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "past", "undone", "code", "lasts", "message"), PAUSES, ids=lambda v: str(v)[:30]
)
def test_what_holds_a_renewal_back(
    case: str,
    past: Past | None,
    undone: Undone | None,
    code: PauseCode | None,
    lasts: timedelta,
    message: str,
) -> None:
    """The reason of the renewal stays; the pause says why it does not begin yet."""
    now = START + 40 * DAY
    found = decide(replace(FACTS, past=past, undone=undone), Renew(), OPEN, now)

    assert found.code is Code.DUE, case
    assert found.at == now + lasts
    assert (found.pause and found.pause.code) == code
    assert (found.pause.message if found.pause else "") == message
    assert found.pause is None or found.pause.until == found.at


@pytest.mark.parametrize("code", list(PauseCode))
@pytest.mark.parametrize("left", [10 * DAY, 6 * HOUR, HOUR, timedelta(minutes=1)])
def test_no_pause_outlasts_the_certificate(code: PauseCode, left: timedelta) -> None:
    """However often it failed: at most a sixth of the time that was left."""
    since = START + LIFE - left
    past = {
        PauseCode.FAILED: Past("failed", since, 99),
        PauseCode.UNANSWERED: Past("unanswered", since, 99),
    }.get(code)
    undone = Undone(since, BY_HAND) if code is PauseCode.UNDONE else None

    found = decide(replace(FACTS, past=past, undone=undone), Renew(), OPEN, since)

    assert found.at is not None
    assert found.at <= since + left / 6


def test_a_pause_before_the_renewal_is_due_is_none() -> None:
    """Weeks before, nothing waits: the moment stays as it was drawn."""
    usual = decide(FACTS, Renew(), OPEN, START + DAY)
    found = decide(replace(FACTS, past=failed_at(1)), Renew(), OPEN, START + DAY)
    assert found == usual


def test_a_first_certificate_waits_too() -> None:
    """Enrolled by hand in vain, it is not ordered again a minute later."""
    enroll = Renew(enroll=True)
    facts = replace(FACTS, held=None, undone=Undone(START, BY_HAND))
    found = decide(facts, enroll, OPEN, START)
    assert (found.code, found.at) == (Code.MISSING, START + HOUR)


def test_a_draw_is_even() -> None:
    """Half of the certificates in the first half of the window."""
    draws = [drawn(str(number)) for number in range(2000)]
    assert all(0 <= one < 1 for one in draws)
    assert 900 < sum(one < 0.5 for one in draws) < 1100
    assert moment_in((START, START + DAY), "x") == moment_in((START, START + DAY), "x")


@pytest.mark.parametrize(
    ("kind", "weak"),
    [("RSA 1024", True), ("RSA 2048", False), ("ECDSA P-256", False), ("DSA", True),
     ("ECDSA secp192r1", False), ("ECDSA P-224", True), ("Ed25519", False)],
)  # fmt: skip
def test_weak_keys(kind: str, weak: bool) -> None:
    """Clients refuse them, so they are replaced now."""
    assert is_weak(kind) is weak


SATURDAYS = Calendar.model_validate(
    {"windows": [{"days": ["sat"], "start": "02:00", "end": "05:00"}]}
)
NEVER = Calendar.model_validate(
    {"windows": [{"start": "02:00", "end": "05:00"}],
     "blackout": {"dates": ["2028-01-01/2032-01-01"]}}
)  # fmt: skip
MONDAY = datetime(2029, 1, 1, 12, tzinfo=UTC)
SATURDAY = datetime(2029, 1, 6, 2, tzinfo=UTC)

HOLDS = [
    ("no window", None, MONDAY, Why.OPEN, None),
    ("open", Hold(calendar=SATURDAYS), SATURDAY, Why.OPEN, None),
    ("shut", Hold(calendar=SATURDAYS), MONDAY, Why.WINDOW, SATURDAY),
    ("deadline behind the window", Hold(calendar=SATURDAYS, deadline=SATURDAY + DAY), MONDAY,
     Why.WINDOW, SATURDAY),
    ("deadline before the window", Hold(calendar=SATURDAYS, deadline=MONDAY + DAY), MONDAY,
     Why.DEADLINE, MONDAY + DAY),
    ("deadline passed", Hold(calendar=SATURDAYS, deadline=MONDAY - DAY), MONDAY,
     Why.DEADLINE, None),
    ("never open", Hold(calendar=NEVER), MONDAY, Why.SHUT, MONDAY + 30 * DAY),
    ("never open, with a deadline", Hold(calendar=NEVER, deadline=MONDAY + DAY), MONDAY,
     Why.DEADLINE, MONDAY + DAY),
]  # fmt: skip


@pytest.mark.parametrize(("case", "hold", "now", "why", "until"), HOLDS, ids=lambda v: str(v)[:30])
def test_when_an_obtained_certificate_is_installed(
    case: str, hold: Hold | None, now: datetime, why: Why, until: datetime | None
) -> None:
    """A window is kept to, and is no reason to expire where the profile says so."""
    found = install_at(hold, now)
    assert (found.why, found.until) == (why, until), case
    assert found.message
