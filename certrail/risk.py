"""At risk: what is known now and would make the next run fail, or come too late.

Pure: no I/O and no clock. :mod:`certrail.store.risk_query` decides the same in
SQL, for lists of a hundred thousand; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from certrail.model import KeyAlgorithm


class RiskCode(StrEnum):
    """Reasons why an endpoint is at risk, the most urgent first."""

    CERTIFICATE_EXPIRED = "certificate-expired"
    RENEWAL_OVERDUE = "renewal-overdue"
    RENEWAL_TOO_LATE = "renewal-too-late"
    RENEWAL_HELD = "renewal-held"
    SERVED_DIFFERS = "served-differs"
    EXECUTOR_SILENT = "executor-silent"
    CA_CHECK_FAILING = "ca-check-failing"
    DNS_CHECK_FAILING = "dns-check-failing"
    TARGET_CHECK_FAILING = "target-check-failing"
    PROFILE_CHANGED = "profile-changed"


@dataclass(frozen=True, slots=True)
class Risk:
    """One reason.

    Attributes:
        code: stable reason code.
        message: the fact, for people.
        remedy: what a person can do; never empty.
    """

    code: RiskCode
    message: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """Return plain data."""
        return {"code": str(self.code), "message": self.message, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class Check:
    """What the last check of a connector said.

    Attributes:
        ok: None if it was never checked.
    """

    name: str
    ok: bool | None = None
    at: datetime | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class RiskFacts:
    """What is known of an endpoint.

    Attributes:
        has_profile: whether a profile applies; without one nothing is automated.
        auto_renew: whether it renews by itself.
        not_after: end of the certificate that lists show.
        held: somebody called its renewal off.
        ca, dns, target: the connectors that its next request needs; None where there is none.
        served: fingerprint that a client saw last, since the last success; None if unknown.
        recorded: fingerprint of the certificate that it got from us last.
        present_ca, present_key, present_names: of the recorded certificate; None and empty
            where it is not known.
        wanted_ca, wanted_key, wanted_names: as profile and endpoint want them now.
        executor: the agent or sensor that reaches it, None if any does.
        silent_since: since when that one was not heard of, None if it was.
    """

    now: datetime
    has_profile: bool = True
    auto_renew: bool = True
    not_after: datetime | None = None
    next_renewal_at: datetime | None = None
    last_success_at: datetime | None = None
    held: bool = False
    ca: Check | None = None
    dns: Check | None = None
    target: Check | None = None
    served: str | None = None
    recorded: str | None = None
    present_ca: str | None = None
    present_key: str | None = None
    present_names: tuple[str, ...] = ()
    wanted_ca: str | None = None
    wanted_key: str | None = None
    wanted_names: tuple[str, ...] = ()
    executor: str | None = None
    silent_since: datetime | None = None


OVERDUE_AFTER = timedelta(hours=24)
"""How long after its moment a renewal that did not happen counts as overdue."""

KEY_TEXTS: dict[KeyAlgorithm, str] = {
    KeyAlgorithm.ECDSA_P256: "ECDSA P-256",
    KeyAlgorithm.ECDSA_P384: "ECDSA P-384",
    KeyAlgorithm.RSA_2048: "RSA 2048",
    KeyAlgorithm.RSA_3072: "RSA 3072",
    KeyAlgorithm.RSA_4096: "RSA 4096",
}
"""What :func:`certrail.model.key_text` says of keys of these kinds."""


def assess(facts: RiskFacts) -> tuple[Risk, ...]:
    """Return every reason why the endpoint is at risk, the most urgent first."""
    if not facts.has_profile:
        return ()
    return tuple(risk for rule in _RULES if (risk := rule(facts)) is not None)


def _expired(facts: RiskFacts) -> Risk | None:
    if not facts.auto_renew or facts.not_after is None or facts.not_after >= facts.now:
        return None
    return Risk(
        RiskCode.CERTIFICATE_EXPIRED,
        f"the certificate ended on {facts.not_after:%Y-%m-%d %H:%M} UTC and was not replaced",
        "Renew it now: `certrail request start LOCATION --wait`.",
    )


def _overdue(facts: RiskFacts) -> Risk | None:
    due = facts.next_renewal_at
    if not facts.auto_renew or due is None or due >= facts.now - OVERDUE_AFTER:
        return None
    if facts.last_success_at is not None and due <= facts.last_success_at:
        return None
    return Risk(
        RiskCode.RENEWAL_OVERDUE,
        f"it should have been renewed on {due:%Y-%m-%d %H:%M} UTC and was not",
        "See with `certrail doctor` whether workers and schedules run, then renew it.",
    )


def _too_late(facts: RiskFacts) -> Risk | None:
    due, ends = facts.next_renewal_at, facts.not_after
    if not facts.auto_renew or due is None or ends is None or due < ends or ends < facts.now:
        return None
    return Risk(
        RiskCode.RENEWAL_TOO_LATE,
        f"it renews on {due:%Y-%m-%d %H:%M} UTC, after the certificate has ended",
        "Widen the maintenance window, or renew it now: `certrail request start LOCATION`.",
    )


def _held(facts: RiskFacts) -> Risk | None:
    if not facts.auto_renew or not facts.held:
        return None
    return Risk(
        RiskCode.RENEWAL_HELD,
        "somebody called its renewal off: nothing happens until the certificate ends",
        "Start it when the reason is gone: `certrail request start LOCATION`.",
    )


def _differs(facts: RiskFacts) -> Risk | None:
    if not facts.served or not facts.recorded or facts.served == facts.recorded:
        return None
    return Risk(
        RiskCode.SERVED_DIFFERS,
        f"it serves {facts.served[:16]}…, not the certificate that was installed "
        f"({facts.recorded[:16]}…)",
        "Find out who changed it; `certrail request start LOCATION --action redeploy` puts ours "
        "back.",
    )


def _silent(facts: RiskFacts) -> Risk | None:
    if facts.executor is None or facts.silent_since is None:
        return None
    return Risk(
        RiskCode.EXECUTOR_SILENT,
        f"{facts.executor}, which reaches it, was not heard of since "
        f"{facts.silent_since:%Y-%m-%d %H:%M} UTC",
        "Start the agent or sensor again; work for it waits.",
    )


def _broken(check: Check | None, facts: RiskFacts, code: RiskCode, what: str) -> Risk | None:
    # A check that failed before the last success says nothing any more.
    if check is None or check.ok is not False or check.at is None:
        return None
    if facts.last_success_at is not None and check.at <= facts.last_success_at:
        return None
    return Risk(
        code,
        f"the {what} {check.name} failed its check: {check.message or 'no reason was kept'}",
        f"Correct it, then `certrail connector check {check.name}`.",
    )


def _changed(facts: RiskFacts) -> Risk | None:
    if facts.present_ca is None or (facts.served or facts.recorded) != facts.recorded:
        return None
    news = []
    if facts.wanted_ca and facts.wanted_ca != facts.present_ca:
        news.append(f"CA {facts.wanted_ca} instead of {facts.present_ca}")
    if facts.wanted_key and facts.present_key and facts.wanted_key != facts.present_key:
        news.append(f"key {facts.wanted_key} instead of {facts.present_key}")
    if missing := [name for name in facts.wanted_names if name not in facts.present_names]:
        news.append(("the name " if len(missing) == 1 else "the names ") + " ".join(missing))
    if not news:
        return None
    return Risk(
        RiskCode.PROFILE_CHANGED,
        f"changed after the certificate was issued: the configuration wants {', '.join(news)}",
        "Have it issued anew: `certrail request start LOCATION --action reissue`.",
    )


_RULES: tuple[Callable[[RiskFacts], Risk | None], ...] = (
    _expired,
    _overdue,
    _too_late,
    _held,
    _differs,
    _silent,
    lambda facts: _broken(facts.ca, facts, RiskCode.CA_CHECK_FAILING, "CA"),
    lambda facts: _broken(facts.dns, facts, RiskCode.DNS_CHECK_FAILING, "DNS connector"),
    lambda facts: _broken(facts.target, facts, RiskCode.TARGET_CHECK_FAILING, "target"),
    _changed,
)
