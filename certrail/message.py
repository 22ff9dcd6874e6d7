"""A message to people or programs, as a notifier gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from certrail.events import Severity


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with a message."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be told. No secret is in it.

    Attributes:
        id: the same at each attempt, so that a receiver can tell a repetition.
        recipient: an address, or "" for whoever the notifier writes to by itself.
        subject: one line.
        text, html: the same for people, with and without markup.
        severity: the gravest of what is told.
        thread: what belongs together has the same, such as all about one request; or "".
        events: the same for programs: one mapping for each event, with its ``id``.
        attachments: files, for notifiers that carry any.
    """

    id: str
    recipient: str
    subject: str
    text: str
    html: str
    severity: Severity
    thread: str = ""
    events: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    attachments: Sequence[Attachment] = ()
