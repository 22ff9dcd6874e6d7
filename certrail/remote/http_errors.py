"""What an HTTP reply that is no success means: an error, in the service's own words."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import cast

import httpx

from certrail.errors import (
    AuthenticationFailed,
    Busy,
    Conflict,
    ConnectorError,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import plain

_LONGEST_WAIT = timedelta(days=1)
_SAID_NOTHING = timedelta(seconds=30)
_MESSAGE_LENGTH = 300
_HIDDEN = "<hidden>"
# Where services put their own words for what is wrong.
_REASONS = ("detail", "message", "error_description", "error", "errors", "title", "reason")


def error_of(
    reply: httpx.Response, what: str, label: str, secrets: Sequence[str] = ()
) -> ConnectorError:
    """Return what a reply that is no success means; see :func:`certrail.remote.http.send`.

    Args:
        what: the call, for people.
        label: the connector's name.
        secrets: what must not come back in the message.
    """
    status = reply.status_code
    said = reason_of(reply, secrets)
    message = f"{what} answered {status}" + (f": {said}" if said else "")
    code = str(status)
    wait = retry_after(reply) if "Retry-After" in reply.headers else None
    match status:
        case 401:
            return AuthenticationFailed(message, connector=label, code=code)
        case 403:
            return PermissionRefused(message, connector=label, code=code)
        case 404 | 410:
            return NotFound(message, connector=label, code=code)
        case 409 | 412:
            return Conflict(message, connector=label, code=code)
        case 423 | 503:
            return Busy(message, connector=label, code=code, retry_after=wait)
        case 429:
            return Throttled(message, connector=label, code=code, retry_after=retry_after(reply))
        case 408 | 425:
            return Unreachable(message, connector=label, code=code, retry_after=wait)
        case _ if status >= 500:
            return Unreachable(message, connector=label, code=code, retry_after=wait)
        case _ if status >= 400:
            return Rejected(message, connector=label, code=code)
    if reply.is_redirect:
        host = plain(reply.headers.get("Location", "").partition("?")[0])[:_MESSAGE_LENGTH]
        return UnexpectedReply(
            f"{what} answered {status}, a redirect to {host or 'nowhere'}",
            remedy="Set the connector's URL to the final address; redirects are not followed.",
            connector=label,
            code=code,
        )
    return UnexpectedReply(message, connector=label, code=code)


def transport_error(exc: httpx.TransportError, what: str, label: str) -> ConnectorError:
    """Return what it means that no reply came; see :func:`certrail.remote.http.send`."""
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{what}: the server's certificate is not trusted ({plain(cause.verify_message)})",
                remedy="If it is the right server, set ca_bundle to the CA that issued its "
                "certificate and address it by a name the certificate carries.",
                connector=label,
                code="untrusted",
            )
    if isinstance(exc, httpx.TimeoutException):
        return Unreachable(f"{what}: no answer in time", connector=label, code="timeout")
    text = plain(exc)[:_MESSAGE_LENGTH] or type(exc).__name__
    if isinstance(exc, httpx.RemoteProtocolError) and not _is_cut(text):
        return UnexpectedReply(f"{what}: the answer is not HTTP ({text})", connector=label)
    return Unreachable(f"{what}: {text}", connector=label)


def _is_cut(text: str) -> bool:
    # h11 has one error type for "went away" and "talks nonsense"; only the words differ.
    return "disconnected" in text or "closed connection" in text


def retry_after(reply: httpx.Response, default: timedelta = _SAID_NOTHING) -> timedelta:
    """Return how long the server asks to be left alone; see :func:`waiting_time`."""
    said = reply.headers.get("Retry-After", "")
    return waiting_time(said, default, now=_date(reply.headers.get("Date", "")))


def waiting_time(text: str, default: timedelta, now: datetime | None = None) -> timedelta:
    """Return what the value of a ``Retry-After`` header means, a day at the most.

    RFC 9110 section 10.2.3 allows seconds or a date; a date that is over means
    now. *default* stands for a missing header and for nonsense; *now* is what time it is at
    the server, so that a wrong clock on either side changes nothing.
    """
    text = text.strip()
    if text.isascii() and text.isdigit():
        return timedelta(seconds=min(int(text[:9]), _LONGEST_WAIT.total_seconds()))
    when = _date(text)
    if when is None:
        return default
    try:
        wait = when - (now or datetime.now(UTC))
    except OverflowError:
        return default
    return min(max(wait, timedelta(0)), _LONGEST_WAIT)


def _date(text: str) -> datetime | None:
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    # "-0000": UTC with nothing said about the place.
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when


def reason_of(reply: httpx.Response, secrets: Sequence[str] = ()) -> str:
    """Return the service's own words for a failure: one short line, without *secrets*."""
    text = _words(reply.content)
    for secret in secrets:
        if secret:
            text = text.replace(secret, _HIDDEN)
    text = plain(" ".join(text.split()))
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    while exc is not None:
        yield exc
        exc = exc.__cause__ or exc.__context__


def _words(content: bytes) -> str:
    """Find the sentence meant for people in an error body."""
    text = content[:65536].decode(errors="replace").strip()
    if text[:1] in "{[":
        try:
            return _first_words(json.loads(text)) or text
        except (ValueError, RecursionError):
            return text
    if text[:1] == "<":
        return ""  # a proxy's HTML page says nothing that the status does not
    return text


def _first_words(value: object, depth: int = 4) -> str:
    if isinstance(value, str):
        return value
    if not depth:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_first_words(item, depth - 1) for item in value[:5])))
    if isinstance(value, dict):
        fields = cast(dict[str, object], value)
        found = (_first_words(fields[key], depth - 1) for key in _REASONS if key in fields)
        return next(filter(None, found), "")
    return ""
