"""Is a certificate to be renewed, when, and why: a function of what is stored and the clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from certrail.configuration.profile import Renew
from certrail.maintenance import Calendar
from certrail.renewal.moments import drawn, within
from certrail.renewal.pause import Past, Pause, Undone, pause

_SOON = timedelta(hours=1)
_WEAK_RSA = 2048
_WEAK_CURVES = ("P-192", "P-224", "SECP160R1", "SECP192K1")


class Code(StrEnum):
    """Why a certificate is renewed, or why it is not."""

    DUE = "renewal-due"
    ARI = "renewal-ari"
    NAMES = "renewal-names-changed"
    PROFILE = "renewal-profile-changed"
    WEAK_KEY = "renewal-weak-key"
    DISTRUSTED = "renewal-ca-distrusted"
    REVOKED = "renewal-revoked"
    EXPIRED = "renewal-expired"
    MISSING = "renewal-missing"
    OFF = "off"
    HELD = "held"
    NONE = "no-certificate"
    UNCONFIGURED = "not-configured"

    @property
    def renews(self) -> bool:
        """Whether this is a reason to renew."""
        return self.value.startswith("renewal-")


IMMEDIATE = (
    Code.REVOKED,
    Code.EXPIRED,
    Code.MISSING,
    Code.DISTRUSTED,
    Code.WEAK_KEY,
    Code.NAMES,
    Code.PROFILE,
)
"""Reasons that do not wait for a date. The first that applies is told."""


@dataclass(frozen=True, slots=True)
class Held:
    """The certificate that an endpoint has."""

    fingerprint: str
    names: frozenset[str]
    key_kind: str
    issuer: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None

    @property
    def lifetime(self) -> timedelta:
        """How long it is valid in all."""
        return self.not_after - self.not_before


@dataclass(frozen=True, slots=True)
class Terms:
    """What decides how a certificate looks: as configured, or as it was ordered."""

    names: frozenset[str]
    ca: str
    ca_profile: str
    key_algorithm: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the CA suggested for this very certificate (RFC 9773)."""

    start: datetime
    end: datetime
    explanation_url: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the decision depends on, but for the clock.

    Attributes:
        held: the endpoint's certificate from us, None if there is none.
        wanted: as it is configured now.
        ordered: as it was when the certificate was ordered, None if not known.
        suggestion: the CA's, for *held*.
        is_gone: the last look at the endpoint found no certificate there.
        auto: whether it is to renew by itself.
        cancelled_by: who called the renewal of *held* off, "" if nobody did.
        obtained_for: the code of the reason for which *held* was ordered, "" if not known.
        past: the newest request that failed, or that nobody approved.
        undone: the newest request of a person that was called off.
    """

    held: Held | None
    wanted: Terms
    ordered: Terms | None = None
    suggestion: Suggestion | None = None
    is_gone: bool = False
    auto: bool = True
    cancelled_by: str = ""
    obtained_for: str = ""
    past: Past | None = None
    undone: Undone | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """When a certificate is renewed and why.

    Attributes:
        code: the reason.
        message: the reason for people.
        at: when its renewal begins; None: not by itself.
        deadline: when it has to be installed at the latest.
        pause: what keeps it from beginning earlier, None if nothing does.
    """

    code: Code
    message: str
    at: datetime | None = None
    deadline: datetime | None = None
    pause: Pause | None = None


def decide(facts: Facts, renew: Renew, calendar: Calendar, now: datetime) -> Decision:
    """Return when the certificate is renewed, and why.

    A state of affairs that a renewal did not change (a CA that goes on using
    a distrusted issuer) is no reason for a second one.
    """
    if not facts.auto:
        return Decision(Code.OFF, "renews only when asked")
    held = facts.held
    if held is None:
        return _without_certificate(facts, renew, now)
    deadline = held.not_before + held.lifetime * renew.deadline_fraction
    if facts.cancelled_by:
        message = f"its renewal was called off by {facts.cancelled_by}"
        return Decision(Code.HELD, message, deadline=deadline)
    reasons = _immediate(facts, held, renew, now)
    reasons = [reason for reason in reasons if reason[0] != facts.obtained_for]
    if reasons:
        code, message = reasons[0]
        # Thousands of endpoints share a profile: not all in the same second.
        urgent = code in (Code.REVOKED, Code.EXPIRED, Code.MISSING)
        if urgent:
            deadline = now
        at = now if urgent else now + _spread_of(held) * drawn(held.fingerprint, code)
    else:
        code, message, at = _by_date(facts, held, renew, calendar)
        at = min(at, deadline)
    return _paused(Decision(code, message, max(at, now), deadline), facts)


def _without_certificate(facts: Facts, renew: Renew, now: datetime) -> Decision:
    if not renew.enroll:
        return Decision(Code.NONE, "there is no certificate of ours to renew")
    if facts.cancelled_by:
        return Decision(Code.HELD, f"it was called off by {facts.cancelled_by}")
    return _paused(Decision(Code.MISSING, "there is no certificate of ours yet", now), facts)


def _paused(decision: Decision, facts: Facts) -> Decision:
    assert decision.at is not None
    ends = facts.held.not_after if facts.held else None
    found = pause(facts.past, facts.undone, ends, decision.at)
    return replace(decision, at=found.until, pause=found) if found else decision


def _immediate(facts: Facts, held: Held, renew: Renew, now: datetime) -> list[tuple[Code, str]]:
    found: dict[Code, str] = {}
    if held.revoked_at is not None:
        found[Code.REVOKED] = f"the certificate was revoked on {held.revoked_at:%Y-%m-%d}"
    if held.not_after <= now:
        found[Code.EXPIRED] = f"the certificate expired on {held.not_after:%Y-%m-%d %H:%M} UTC"
    if facts.is_gone:
        found[Code.MISSING] = "no certificate is there any more"
    if held.issuer.casefold() in {issuer.casefold() for issuer in renew.distrusted_issuers}:
        found[Code.DISTRUSTED] = f"its issuer {held.issuer} is no longer trusted"
    if is_weak(held.key_kind):
        found[Code.WEAK_KEY] = f"its key is too weak: {held.key_kind}"
    if message := _names_differ(facts, held):
        found[Code.NAMES] = message
    if facts.ordered is not None and (message := _terms_differ(facts.ordered, facts.wanted)):
        found[Code.PROFILE] = message
    return [(code, found[code]) for code in IMMEDIATE if code in found]


def _by_date(
    facts: Facts, held: Held, renew: Renew, calendar: Calendar
) -> tuple[Code, str, datetime]:
    suggestion = facts.suggestion
    if suggestion is not None and renew.use_ari:
        window = (suggestion.start, suggestion.end)
        at = within(window, held.fingerprint, calendar)
        message = (
            f"the CA suggests to renew between {suggestion.start:%Y-%m-%d %H:%M} "
            f"and {suggestion.end:%Y-%m-%d %H:%M} UTC"
        )
        if suggestion.explanation_url:
            message += f": {suggestion.explanation_url}"
        return Code.ARI, message, at
    last = held.not_before + held.lifetime * renew.at_lifetime_fraction
    first = last - held.lifetime * renew.spread
    at = within((first, last), held.fingerprint, calendar) if first < last else last
    share = round((at - held.not_before) / held.lifetime * 100)
    return Code.DUE, f"{share} % of its lifetime has passed by then", at


def is_weak(key_kind: str) -> bool:
    """Return whether a key, as the inventory names it, is below what clients accept.

    RSA under 2048 bits, DSA, and curves under 256 bits (CA/Browser Forum
    Baseline Requirements section 6.1.5).
    """
    kind, _, size = key_kind.partition(" ")
    if kind == "RSA":
        return size.isdigit() and int(size) < _WEAK_RSA
    return kind == "DSA" or size.upper() in _WEAK_CURVES


def _names_differ(facts: Facts, held: Held) -> str:
    # A CA may add names of its own, so what was ordered counts where it is known.
    before = facts.ordered.names if facts.ordered else held.names
    missing = facts.wanted.names - before
    extra = (before - facts.wanted.names) if facts.ordered else frozenset()
    told = []
    if missing:
        told.append(f"lacks {', '.join(sorted(missing))}")
    if extra:
        told.append(f"still has {', '.join(sorted(extra))}")
    return f"the certificate {' and '.join(told)}" if told else ""


def _terms_differ(before: Terms, wanted: Terms) -> str:
    for what, old, new in (
        ("CA", before.ca, wanted.ca),
        ("CA's profile", before.ca_profile, wanted.ca_profile),
        ("key", before.key_algorithm, wanted.key_algorithm),
    ):
        if old != new:
            return f"the {what} is {new or 'the default'} now, it was {old or 'the default'}"
    return ""


def _spread_of(held: Held) -> timedelta:
    return min(_SOON, held.lifetime / 50)
