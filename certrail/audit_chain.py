"""The chain of the audit trail: each entry's hash covers the one before it.

An edit, a missing entry, another order and an insertion break the chain from
there on. What was cut off at the end leaves a whole chain behind, so it shows
only against an anchor: place and hash of an entry, noted somewhere else.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from certrail.errors import InvalidRequest
from certrail.words import counted


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit trail."""

    seq: int
    at: datetime
    actor: str
    action: str
    object: str
    detail: Mapping[str, Any]
    hash: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data; :meth:`from_json` reads it back."""
        return {
            "seq": self.seq,
            "at": moment_text(self.at),
            "actor": self.actor,
            "action": self.action,
            "object": self.object,
            "detail": dict(self.detail),
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Entry:
        """Read an exported entry.

        Raises:
            InvalidRequest: it is none.
        """
        try:
            return cls(
                seq=int(raw["seq"]),
                at=datetime.fromisoformat(raw["at"]),
                actor=str(raw["actor"]),
                action=str(raw["action"]),
                object=str(raw["object"]),
                detail=dict(raw["detail"]),
                hash=str(raw["hash"]),
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise InvalidRequest(
                f"this is no exported audit entry: {exc}",
                remedy="Give a file written by `certrail audit export --json`.",
            ) from exc


@dataclass(frozen=True, slots=True)
class Anchor:
    """Place and hash of an entry that was there at some time."""

    seq: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> Anchor:
        """Read ``SEQ:HASH``.

        Raises:
            InvalidRequest: it has another form.
        """
        place, _, found = text.strip().partition(":")
        if not place.isdigit() or len(found) != hashlib.sha256().digest_size * 2:
            raise InvalidRequest(
                f"{text!r} is no anchor", remedy="An anchor is SEQ:HASH, as `audit verify` says it."
            )
        return cls(int(place), found.lower())

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


class Broken(StrEnum):
    """What is wrong with a chain."""

    EDITED = "edited"
    MISSING = "missing"
    NOT_CHAINED = "not-chained"
    CUT_OFF = "cut-off"
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True)
class Finding:
    """One break, and where it is."""

    code: Broken
    seq: int
    message: str


def moment_text(moment: datetime) -> str:
    """Return a time as it stands in an entry: UTC, to the microsecond."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def entry_hash(entry: Entry, before: str) -> str:
    """Return what the hash of *entry* has to be after an entry with the hash *before*."""
    text = "\n".join(
        (
            before,
            str(entry.seq),
            moment_text(entry.at),
            *(
                json.dumps(word, ensure_ascii=False)
                for word in (entry.actor, entry.action, entry.object)
            ),
            _jsonb(entry.detail),
        )
    )
    return hashlib.sha256(text.encode()).hexdigest()


def verify(
    entries: Iterable[Entry], anchors: Sequence[Anchor] = (), *, unchained: int = 0
) -> tuple[list[Finding], Anchor | None]:
    """Return what is wrong with a chain, and its end as an anchor for the next time.

    Args:
        entries: from the first one on, in their order.
        anchors: what is known of earlier times.
        unchained: how many entries have no place in the chain.
    """
    findings: list[Finding] = []
    known = {anchor.seq: anchor for anchor in anchors}
    before, expected, last = "", 1, None
    for entry in entries:
        if entry.seq != expected:
            missing = f"{expected}" if entry.seq == expected + 1 else f"{expected}-{entry.seq - 1}"
            findings.append(
                Finding(
                    Broken.MISSING,
                    entry.seq,
                    f"entry {missing} is missing before {entry.seq}"
                    if entry.seq > expected
                    else f"entry {entry.seq} comes after {expected - 1}",
                )
            )
        elif not hmac.compare_digest(entry.hash, entry_hash(entry, before)):
            findings.append(
                Finding(
                    Broken.EDITED,
                    entry.seq,
                    f"entry {entry.seq} ({entry.action} {entry.object}) is not what was written",
                )
            )
        anchor = known.pop(entry.seq, None)
        if anchor is not None and anchor.hash != entry.hash:
            findings.append(
                Finding(
                    Broken.REWRITTEN,
                    entry.seq,
                    f"entry {entry.seq} is another one than when its anchor was noted",
                )
            )
        before, expected, last = entry.hash, entry.seq + 1, entry
    for anchor in known.values():
        findings.append(
            Finding(
                Broken.CUT_OFF,
                anchor.seq,
                f"entry {anchor.seq} was there when its anchor was noted and is gone",
            )
        )
    if unchained:
        findings.append(
            Finding(
                Broken.NOT_CHAINED,
                0,
                counted(unchained, "entry was", "entries were") + " written around the chain",
            )
        )
    return findings, Anchor(last.seq, last.hash) if last else None


def _jsonb(value: Any) -> str:
    """Return *value* as PostgreSQL writes a jsonb value: keys by length, then by bytes."""
    if isinstance(value, Mapping):
        keys = sorted(value, key=lambda key: (len(key.encode()), key.encode()))
        inner = ", ".join(f"{_string(key)}: {_jsonb(value[key])}" for key in keys)
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_jsonb, value))}]"
    if isinstance(value, str):
        return _string(value)
    return json.dumps(value)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
