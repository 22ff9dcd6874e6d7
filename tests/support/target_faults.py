"""What goes wrong on the way to an install target, said in the words of its protocol.

:data:`FAULTS` is the list that every target is tried with. A protocol has each of
them in :class:`Speech`, or says why there is no such thing in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from certrail.errors import (
    Busy,
    ConnectorError,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from tests.support.scripted import http_reply


@dataclass(frozen=True)
class Said:
    """What the other side says, and what is made of it.

    Attributes:
        reply: its bytes; the connection is closed after them.
        error: what people are told.
        stall: it stays open instead, and nothing more comes.
    """

    reply: bytes
    error: type[ConnectorError]
    stall: bool = False


@dataclass(frozen=True)
class Lacks:
    """A fault that a protocol does not have, and why."""

    reason: str


Speech = Mapping[str, tuple[Said, ...] | Lacks]

CLOSED, CUT, STALL = "closed connection", "cut reply", "stall"
SECONDS, DATE = "429 with seconds", "429 with a date"
FAILURE, NONSENSE = "server error", "nonsense body"
FAULTS = (CLOSED, CUT, STALL, SECONDS, DATE, FAILURE, NONSENSE)

_HTML = b"<html><body>It works!</body></html>"
_LATER = format_datetime(datetime.now(UTC) + timedelta(hours=12), usegmt=True)
_STALLED = Said(b"", Unreachable, stall=True)

HTTP: Speech = {
    CLOSED: (Said(b"", Unreachable),),
    CUT: (Said(http_reply(200, {"Content-Length": "500"}, b"{"), Unreachable),),
    STALL: (_STALLED,),
    SECONDS: (Said(http_reply(429, {"Retry-After": "7"}), Throttled),),
    DATE: (Said(http_reply(429, {"Retry-After": _LATER}), Throttled),),
    FAILURE: (Said(http_reply(502, {}, _HTML), Unreachable),),
    NONSENSE: (
        Said(http_reply(200, {}, _HTML), UnexpectedReply),
        Said(http_reply(200, {}, b"[]"), UnexpectedReply),
        Said(http_reply(200, {}, b'"x"'), UnexpectedReply),
        Said(http_reply(301, {"Location": "https://elsewhere.test/"}), UnexpectedReply),
    ),
}

_NO_THROTTLE = (
    "{} has no answer that asks to come back later: what is too much waits in the queue of the "
    "listener, which is a stall, or is not let in, which is a closed connection"
)

STATS_SOCKET: Speech = {
    CLOSED: (Said(b"", Unreachable),),
    CUT: (Said(b"Name: HAPr", Unreachable),),
    STALL: (_STALLED, Said(b"Name: HAProxy\n", Unreachable, stall=True)),
    SECONDS: Lacks(_NO_THROTTLE.format("The stats socket")),
    DATE: Lacks(_NO_THROTTLE.format("The stats socket")),
    FAILURE: (
        Said(b"Permission denied\n", PermissionRefused),
        Said(b"Unknown command: 'show info'\n", UnexpectedReply),
    ),
    NONSENSE: (
        Said(b"SSH-2.0-OpenSSH_9.2\r\n", UnexpectedReply),
        Said(http_reply(400, {}, _HTML) + b"\n", UnexpectedReply),
    ),
}

RESP: Speech = {
    CLOSED: (Said(b"", Unreachable),),
    CUT: (Said(b"$400\r\nredis_ver", Unreachable),),
    STALL: (_STALLED, Said(b"$400\r\nredis_ver", Unreachable, stall=True)),
    SECONDS: Lacks(_NO_THROTTLE.format("Redis's protocol")),
    DATE: Lacks(_NO_THROTTLE.format("Redis's protocol")),
    FAILURE: (
        Said(b"-ERR internal\r\n", Rejected),
        Said(b"-LOADING Redis is loading the dataset in memory\r\n", Busy),
        Said(b"-ERR max number of clients reached\r\n", ConnectorError),
    ),
    NONSENSE: (
        Said(http_reply(400, {}, _HTML), UnexpectedReply),
        Said(b"220 mail.example.test ESMTP\r\n", UnexpectedReply),
    ),
}
