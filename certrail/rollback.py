"""May an endpoint go back to the certificate before? A function of the record and the clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certrail.policy import Dated


class Code(StrEnum):
    """Why there is no way back; the reason in a word."""

    NOT_INSTALLED = "not-installed"
    REPLACED_SINCE = "replaced-since"
    NOTHING_BEFORE = "nothing-before"
    NOT_KEPT = "not-kept"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the request that is to be taken back.

    Attributes:
        is_installed: it ended well, with a certificate.
        is_present: what it installed is what the endpoint has now.
        had_before: something was served or stored there before.
        before: the certificate that was, None if the inventory does not know it.
        has_key: whether our store holds the key of *before*.
        is_kept_there: whether the target itself can bring it back.
    """

    is_installed: bool
    is_present: bool
    had_before: bool
    before: Dated | None
    has_key: bool
    is_kept_there: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, in a word and a sentence, and what helps."""

    code: Code
    message: str
    remedy: str


def refusal(facts: Facts, now: datetime, *, force: bool) -> Refusal | None:
    """Return why the request is not taken back, None if it is.

    *force* goes back even to a certificate that clients refuse.
    """
    if not facts.is_installed:
        return Refusal(
            Code.NOT_INSTALLED,
            "it installed nothing, so there is nothing to take back",
            "Name a request that was successful: `certrail request list --location LOCATION`.",
        )
    if not facts.is_present:
        return Refusal(
            Code.REPLACED_SINCE,
            "what it installed was replaced since",
            "Give the location instead of an id: what is there now is taken back.",
        )
    if not facts.had_before:
        return Refusal(
            Code.NOTHING_BEFORE,
            "there was no certificate before it, so there is nothing to go back to",
            "Start a reissue if the present certificate is to be replaced.",
        )
    if facts.before is None or not (facts.has_key or facts.is_kept_there):
        return Refusal(
            Code.NOT_KEPT,
            "the certificate before it is not kept: it was never seen by a client, or its key is "
            "not ours and the target has no copy",
            "Put it back by hand, or start a reissue.",
        )
    if force:
        return None
    if facts.before.revoked_at is not None:
        return Refusal(
            Code.REVOKED,
            f"the certificate before it was revoked on {facts.before.revoked_at:%Y-%m-%d}",
            "Start a reissue, or go back to it all the same with --force.",
        )
    if facts.before.not_after <= now:
        return Refusal(
            Code.EXPIRED,
            f"the certificate before it expired on {facts.before.not_after:%Y-%m-%d %H:%M} UTC",
            "Start a reissue, or go back to it all the same with --force.",
        )
    return None
