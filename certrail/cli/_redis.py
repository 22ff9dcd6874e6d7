"""The Redis that carries the messages of a Prefect server of several processes."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis

from certrail.errors import InvalidRequest, Unreachable
from certrail.log import plain

_SECONDS = 5.0


def answering_redis(url: str) -> str:
    """Return *url* if a Redis answers there that takes streams.

    Raises:
        InvalidRequest: it is not the address of a Redis.
        Unreachable: nothing answers, or it wants another password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise InvalidRequest(
            "the address of Redis cannot be used",
            remedy="Give redis://user:password@host:6379/0, or rediss:// for TLS.",
        )
    where = f"{parts.hostname}:{parts.port or 6379}"
    try:
        with redis.Redis.from_url(
            url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS
        ) as client:
            client.xlen("certrail")
    except ValueError as exc:
        raise InvalidRequest(
            f"the address of Redis cannot be used: {plain(exc)}",
            remedy="Give redis://user:password@host:6379/0, or rediss:// for TLS.",
        ) from None
    except redis.RedisError as exc:
        raise Unreachable(
            f"Redis at {where} does not answer: {plain(exc)}",
            remedy="Start it, or correct --redis (user, password, port, TLS).",
        ) from None
    return url
