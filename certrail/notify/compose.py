"""From events to a message: subject, text and HTML, by our templates or by the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from certrail.events import Severity
from certrail.log import logger, plain
from certrail.message import Attachment, Message
from certrail.notify.sandbox import render
from certrail.notify.settings import NotificationSettings, Template

_FOLDER = Path(__file__).parent / "templates"
_LONGEST_SUBJECT = 180
_PARTS = ("subject", "text", "html")
# What a program gets of an event; all of it is text, numbers and lists.
_FOR_PROGRAMS = (
    "id",
    "name",
    "slug",
    "severity",
    "title",
    "location",
    "occurred",
    "cause",
    "remedy",
    "detail",
    "link",
    "payload",
)


def compose(
    described: Sequence[Mapping[str, Any]],
    settings: NotificationSettings,
    *,
    message_id: str,
    recipient: str,
    because: str = "",
    attachments: Sequence[Attachment] = (),
) -> Message:
    """Return the message that tells of events.

    Args:
        described: the events, from :func:`certrail.notify.words.describe`.
        settings: the account-wide rules, for their templates.
        message_id, recipient: of the message.
        because: why they are told together, "" for one that is told by itself.
        attachments: files that go with it.
    """
    # Whoever is woken by it reads the first lines.
    ordered = sorted(described, key=lambda one: -Severity(one["severity"]).rank)
    gravest = ordered[0]
    data = {
        **gravest,
        "events": ordered,
        "count": len(described),
        "because": because,
        "summary": _summary(ordered),
    }
    slug = str(gravest["slug"]) if len(described) == 1 else ""
    parts = {part: _part(part, data, settings, slug) for part in _PARTS}
    return Message(
        id=message_id,
        recipient=recipient,
        subject=plain(parts["subject"].strip())[:_LONGEST_SUBJECT],
        text=parts["text"],
        html=parts["html"],
        severity=Severity(gravest["severity"]),
        thread=str(gravest["payload"].get("request_id", "")) if len(described) == 1 else "",
        events=tuple({key: one.get(key) for key in _FOR_PROGRAMS} for one in described),
        attachments=tuple(attachments),
    )


def _summary(ordered: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return how many there are of each kind, the gravest first."""
    counted: Counter[tuple[str, str]] = Counter(
        (str(one["title"]), str(one["severity"])) for one in ordered
    )
    return [
        {"title": title, "severity": severity, "count": count}
        for (title, severity), count in counted.items()
    ]


def _part(part: str, data: Mapping[str, Any], settings: NotificationSettings, slug: str) -> str:
    own = _own(settings, slug, part)
    if own is not None:
        try:
            return render(own, data, html=part == "html")
        except ValueError as exc:
            # A message in our words is better than none.
            logger.warning("the template of %s for %s cannot be used: %s", part, slug, exc)
    return render(builtin(part, single=bool(slug)), data, html=part == "html")


def _own(settings: NotificationSettings, slug: str, part: str) -> str | None:
    if not slug:
        return None
    for name in (slug, "all"):
        template = settings.templates.get(name, Template())
        found: str | None = getattr(template, part)
        if found is not None:
            return found
    return None


@cache
def builtin(part: str, *, single: bool) -> str:
    """Return our own template of a part: for one event, or for several."""
    name = "one" if single else "several"
    return (_FOLDER / f"{name}.{part}.j2").read_text(encoding="utf-8")
