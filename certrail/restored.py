"""After a restore: what the old installation did after the backup, seen from what is served.

A backup knows nothing of what was ordered after it. The certificate that a site
serves tells: issued between backup and restore, it is what the request is for.
Pure functions, no clock and no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from certrail.model import KeyAlgorithm
from certrail.renewal.due import Code as Due

# CAs date certificates back for clients whose clocks are slow: an hour at the most (Let's Encrypt).
_DATED_BACK = timedelta(hours=1)
# Reasons that a newer certificate settles, whoever asked for it. Another profile or
# another issuer is what the old installation may not have known of.
_SETTLED_BY_NEWER = (Due.DUE, Due.ARI, Due.REVOKED, Due.EXPIRED, Due.MISSING, Due.WEAK_KEY)


@dataclass(frozen=True, slots=True)
class Restored:
    """The restore that an installation comes from.

    Attributes:
        made_at: when the backup was made.
        at: when it was restored; the old installation did nothing any more.
    """

    made_at: datetime
    at: datetime

    def knew(self, created_at: datetime) -> bool:
        """Whether a request that was made then came with the backup, so the old one went on."""
        return created_at <= max(self.made_at, self.at)

    def may_be_served(self, created_at: datetime, reason_code: str) -> bool:
        """Whether what a request asks for may be there already, from after the backup.

        True for those that came with the backup, and for renewals that the
        policy asks for since it knows an older certificate only. What a person
        asks for after the restore is always a new certificate.
        """
        return self.knew(created_at) or reason_code in _SETTLED_BY_NEWER


@dataclass(frozen=True, slots=True)
class Served:
    """The certificate that every address of an endpoint serves, and that clients accept.

    Attributes:
        algorithm: of its key, None if it is none of those that Certrail makes.
    """

    fingerprint: str
    names: frozenset[str]
    algorithm: KeyAlgorithm | None
    not_before: datetime
    is_revoked: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is for.

    Attributes:
        previous: fingerprint of the certificate that the endpoint has by our records, "" for none.
    """

    names: frozenset[str]
    algorithm: KeyAlgorithm
    previous: str = ""


class Code(StrEnum):
    """Whether what is served is what the request would order."""

    TAKEN = "issued-since-backup"
    NOTHING = "nothing-served"
    KNOWN = "known-to-backup"
    NOT_BETWEEN = "not-issued-between"
    NAMES = "other-names"
    KEY = "other-key"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and the sentence that explains it."""

    code: Code
    message: str


def judge(restored: Restored, served: Served, wanted: Wanted) -> Verdict:
    """Decide whether the certificate that is served is taken, or another one ordered."""
    if served.fingerprint == wanted.previous:
        return Verdict(Code.KNOWN, "the certificate that the backup knows is served")
    if served.is_revoked:
        return Verdict(Code.REVOKED, "the certificate that is served is revoked")
    if not restored.made_at - _DATED_BACK <= served.not_before <= restored.at:
        return Verdict(
            Code.NOT_BETWEEN,
            f"what is served was issued on {served.not_before:%Y-%m-%d %H:%M} UTC, "
            "not between backup and restore",
        )
    if served.names != wanted.names:
        return Verdict(Code.NAMES, "what is served has other names")
    if served.algorithm is not wanted.algorithm:
        return Verdict(Code.KEY, f"what is served has no {wanted.algorithm} key")
    return Verdict(
        Code.TAKEN,
        "it was issued after the backup and is served already: nothing is ordered. "
        "Its private key is not in this installation",
    )
