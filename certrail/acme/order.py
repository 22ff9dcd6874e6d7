"""Orders and authorizations as the CA describes them (RFC 8555 sections 7.1.3 and 7.1.4)."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from certrail.acme.connection import Connection
from certrail.acme.problem import Problem
from certrail.acme.reply import Reply
from certrail.errors import UnexpectedReply
from certrail.log import plain
from certrail.model import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    Order,
    OrderStatus,
)

# The token becomes a file name (http-01), so its alphabet is enforced (RFC 8555 section 8.1).
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,255}")
_KINDS = {str(kind): kind for kind in ChallengeKind}


def read_order(reply: Reply, order: Order) -> Order:
    """Return *order* brought up to what the CA says of it.

    Fields that the reply leaves out keep what was known; some CAs answer
    finalize with less than the order.

    Raises:
        UnexpectedReply: it is not an order.
    """
    body = reply.json()
    try:
        status = OrderStatus(str(body.get("status")))
    except ValueError as exc:
        raise _not_an(reply, "order", f"its status is {plain(body.get('status'))[:40]}") from exc
    data = dict(order.data)
    for field in ("finalize", "certificate"):
        if isinstance(body.get(field), str):
            data[field] = body[field]
    urls = body.get("authorizations")
    if isinstance(urls, list) and all(isinstance(url, str) for url in urls):
        data["authorizations"] = urls
    if not data.get("finalize") or "authorizations" not in data:
        raise _not_an(reply, "order", "it has no finalize or authorizations")
    problem = Problem.parse(body.get("error"))
    data["problem"], data["problem_code"] = (
        (str(problem), problem.type) if problem.type else ("", "")
    )
    expires = body.get("expires")
    return replace(
        order,
        status=status,
        expires=plain(expires) if isinstance(expires, str) else order.expires,
        data=data,
    )


def read_authorization(
    reply: Reply, names: Iterable[str], thumbprint: str, connection: Connection
) -> Authorization:
    """Return an authorization with the values that prove control.

    Args:
        reply: the CA's answer.
        names: what was ordered, to tell a wildcard where the CA does not say.
        thumbprint: of the account key.
        connection: decides whether the challenges' URLs may be followed.

    Raises:
        UnexpectedReply: it is not an authorization.
    """
    body = reply.json()
    try:
        status = AuthorizationStatus(str(body.get("status")))
    except ValueError as exc:
        shown = plain(body.get("status"))[:40]
        raise _not_an(reply, "authorization", f"its status is {shown}") from exc
    identifier = body.get("identifier")
    value = identifier.get("value") if isinstance(identifier, Mapping) else None
    if not isinstance(value, str):
        raise _not_an(reply, "authorization", "it names no identifier")
    base = _canonical(plain(value))
    wildcard = body.get("wildcard") is True or _only_wildcard(base, names)
    offered = body.get("challenges")
    offered = [item for item in offered if isinstance(item, Mapping)] if offered else []
    problem = _failure(offered) if status is not AuthorizationStatus.VALID else None
    return Authorization(
        name=f"*.{base}" if wildcard else base,
        status=status,
        url=reply.url,
        expires=_moment(body.get("expires")),
        challenges=tuple(
            _challenge(item, reply, base, thumbprint, connection)
            for item in offered
            if isinstance(item.get("type"), str) and item["type"] in _KINDS
        ),
        problem=str(problem) if problem else "",
        problem_code=problem.type if problem else "",
        retry_after=reply.retry_after,
    )


def _challenge(
    item: Mapping[str, Any], reply: Reply, name: str, thumbprint: str, connection: Connection
) -> Challenge:
    kind = _KINDS[item["type"]]
    token = item.get("token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _not_an(reply, "authorization", f"the token of its {kind} challenge cannot be used")
    proof = f"{token}.{thumbprint}"
    return Challenge(
        kind=kind,
        url=connection.check(item.get("url")),
        authorization=reply.url,
        name=name,
        token=token,
        key_authorization=proof,
        txt_value=_txt_value(proof) if kind is ChallengeKind.DNS_01 else "",
    )


def _txt_value(key_authorization: str) -> str:
    digest = hashlib.sha256(key_authorization.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _failure(challenges: list[Mapping[str, Any]]) -> Problem | None:
    """Return what the CA said about a challenge that failed, None if none did.

    Some CAs leave a failed challenge "pending" with an error and would look
    again only if asked again. An error on one that is "processing" is an
    attempt that the CA itself repeats (RFC 8555 section 8.2).
    """
    for item in challenges:
        if item.get("status") in ("invalid", "pending") and isinstance(item.get("error"), Mapping):
            return Problem.parse(item["error"])
    return None


def _only_wildcard(base: str, names: Iterable[str]) -> bool:
    known = set(names)
    return f"*.{base}" in known and base not in known


def _canonical(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        return value.lower().rstrip(".")


def _moment(value: object) -> datetime | None:
    """Read an RFC 3339 time; None if there is none or it is unreadable."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment and moment.tzinfo else None


def _not_an(reply: Reply, kind: str, why: str) -> UnexpectedReply:
    return UnexpectedReply(
        f"{plain(reply.url)} is not an ACME {kind}: {why}", connector=reply.label
    )
