"""One way to talk HTTP: always with deadlines, always verified, never redirected.

A connector makes a :func:`client`, sends through :func:`send` and reads with
:func:`json_of`; only :mod:`certrail.remote.http_errors` turns an HTTP reply into an error.
"""

from __future__ import annotations

import base64
import binascii
import logging
import ssl
import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
from pydantic import TypeAdapter, ValidationError

from certrail.errors import InvalidRequest, UnexpectedReply, Unreachable
from certrail.log import plain
from certrail.remote.http_errors import error_of, transport_error

T = TypeVar("T")

DEFAULT_TIMEOUT = timedelta(seconds=20)
DEFAULT_DEADLINE = timedelta(seconds=90)
DEFAULT_LIMIT = 8 * 1024 * 1024

_LABEL = "certrail_connector"
_SHORTEST_SECRET = 6
# Headers every client sends; all others may carry a credential.
_HARMLESS = {"accept", "accept-encoding", "connection", "content-length", "content-type", "host"}
_HARMLESS |= {"if-match", "if-none-match", "transfer-encoding", "user-agent"}

# At INFO httpx logs every URL with its query, where some appliances want their key.
logging.getLogger("httpx").setLevel(logging.WARNING)


def client(
    base_url: str,
    *,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | httpx.Auth | None = None,
    ca_bundle: str = "",
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> httpx.Client:
    """Return a client for one service; use it as a context manager.

    Every connect, read, write and wait for a connection has *timeout*.
    Certificates are verified against *ca_bundle* (a path, or PEM text) or, when
    that is "", against the system's. Redirects are not followed: they would take
    the credential to another place.

    Raises:
        InvalidRequest: the URL is no http(s) URL, a header cannot be sent, or the
            bundle cannot be read.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise InvalidRequest(f"not a URL: {plain(exc)}") from exc
    if url.scheme not in ("http", "https") or not url.host or (url.port or 1) > 65535:
        raise InvalidRequest(
            f"not an http or https URL: {plain(url.copy_with(userinfo=b'', query=None))}",
            remedy="Write the address as https://host[:port][/path].",
        )
    given = dict(headers or {})
    if isinstance(auth, tuple):
        token = base64.b64encode(":".join(auth).encode()).decode()
        given["Authorization"] = f"Basic {token}"
    for name, value in given.items():
        if not value.isascii() or not value.isprintable():
            # The library's own error would quote the value, which may be a key.
            raise InvalidRequest(
                f"the value for the header {name} has characters that cannot be sent",
                remedy="Look for a line break or a typographic character in the credential.",
            )
    return httpx.Client(
        base_url=url,
        headers=given,
        auth=None if isinstance(auth, tuple) else auth,
        verify=tls_context(ca_bundle),
        timeout=timeout.total_seconds(),
        follow_redirects=False,
    )


def tls_context(ca_bundle: str = "") -> ssl.SSLContext:
    """Return a verifying context that trusts *ca_bundle* (path or PEM text) or the system.

    Raises:
        InvalidRequest: the bundle cannot be read or holds no certificate.
    """
    is_pem = "-----BEGIN" in ca_bundle
    try:
        if not ca_bundle or is_pem:
            return _context("", ca_bundle, 0)
        return _context(ca_bundle, "", Path(ca_bundle).stat().st_mtime_ns)
    except (OSError, ValueError) as exc:
        where = "given as text" if is_pem else plain(ca_bundle)
        raise InvalidRequest(
            f"the CA bundle {where} cannot be used: {plain(exc)}",
            remedy="Give a readable PEM file with the CA certificates of the service.",
        ) from exc


@lru_cache(maxsize=64)
def _context(path: str, pem: str, _changed: int) -> ssl.SSLContext:
    # Reading the system's roots takes tens of milliseconds of CPU, a bulk job
    # opens thousands of clients, and a context may be shared by threads.
    return ssl.create_default_context(cafile=path or None, cadata=pem or None)


def send(
    client: httpx.Client,
    label: str,
    method: str,
    path: str,
    *,
    accept: Container[int] = (),
    limit: int = DEFAULT_LIMIT,
    deadline: timedelta = DEFAULT_DEADLINE,
    hide: Sequence[str] = (),
    **kwargs: Any,
) -> httpx.Response:
    """Send one request and return its whole reply, if that is a success.

    Args:
        client: of :func:`client`.
        label: the connector's name, for people.
        accept: status codes that the caller handles itself, besides 2xx.
        limit: the longest body taken, in bytes after decompression.
        deadline: for the whole body, so that one that drips cannot hold us.
        hide: further secrets (in a body or a query) that must not come back in a message.
        kwargs: ``params``, ``json``, ``content``, ``headers`` … of httpx.

    Raises:
        Unreachable: no connection, no trust, a cut or late reply, 5xx.
        Busy: 423 and 503.
        Throttled: 429.
        AuthenticationFailed, PermissionRefused, NotFound, Conflict: 401; 403;
            404 and 410; 409 and 412.
        Rejected: any other 4xx; ``code`` is the status.
        UnexpectedReply: a redirect, more than *limit*, not HTTP.
        InvalidRequest: the request cannot be sent as written.
    """
    what = f"{label}: {method} {path.partition('?')[0]}"
    try:
        request = client.build_request(method, path, **kwargs)
        reply = client.send(request, stream=True)
        try:
            body = _read(reply, what, label, limit, time.monotonic() + deadline.total_seconds())
        finally:
            reply.close()
    except httpx.LocalProtocolError:
        # Not chained: the text quotes the header it did not like.
        raise InvalidRequest(f"{what}: the request cannot be sent as written") from None
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise InvalidRequest(f"{what}: not an http or https URL") from exc
    except httpx.DecodingError as exc:
        raise UnexpectedReply(f"{what}: the reply cannot be unpacked", connector=label) from exc
    except httpx.TransportError as exc:
        raise transport_error(exc, what, label) from exc
    whole = httpx.Response(
        reply.status_code,
        headers=[
            # As bytes: a header with other letters than those of ASCII is no reason to fail.
            (name, value)
            for name, value in reply.headers.raw
            if name.lower() not in (b"content-encoding", b"content-length", b"transfer-encoding")
        ],
        content=body,
        request=request,
        extensions={_LABEL: label},
    )
    if whole.is_success or whole.status_code in accept:
        return whole
    raise error_of(whole, what, label, [*_credentials(reply.request), *hide])


def json_of(reply: httpx.Response, kind: type[T]) -> T:
    """Return the reply's JSON body as *kind*: a pydantic model, ``dict``, ``list[Model]`` …

    Raises:
        UnexpectedReply: it is not JSON, or not of that shape. The message says
            where it is wrong and quotes nothing of it.
    """
    label = str(reply.extensions.get(_LABEL, reply.request.url.host))
    adapter = _adapter(cast(Any, kind))
    return cast(T, _checked(lambda: adapter.validate_json(reply.content), label))


def shaped(part: object, kind: type[T], label: str) -> T:
    """Return a part of a reply of the service *label* as *kind*; see :func:`json_of`.

    Raises:
        UnexpectedReply: it is not of that shape.
    """
    adapter = _adapter(cast(Any, kind))
    return cast(T, _checked(lambda: adapter.validate_python(part), label))


def _checked(validate: Callable[[], Any], label: str) -> Any:
    try:
        return validate()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        place = plain(".".join(str(part) for part in first["loc"])) or "the whole"
        shape = first["type"] if first["type"] == "json_invalid" else f"{place}: {first['msg']}"
    # Outside the handler: pydantic's own error quotes the reply in a traceback.
    raise UnexpectedReply(
        f"{label}: the reply is not what the API documents ({shape})", connector=label
    )


@lru_cache(maxsize=256)
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read(reply: httpx.Response, what: str, label: str, limit: int, deadline: float) -> bytes:
    body = bytearray()
    for chunk in reply.iter_bytes():
        body += chunk
        if len(body) > limit:
            raise UnexpectedReply(
                f"{what}: the reply is longer than {limit} bytes", connector=label
            )
        if time.monotonic() > deadline:
            raise Unreachable(f"{what}: the reply did not end in time", connector=label)
    return bytes(body)


def _credentials(request: httpx.Request) -> Iterator[str]:
    """Yield what of the request must not come back in a message, the longest form first."""
    for name, value in request.headers.items():
        if name in _HARMLESS or len(value) < _SHORTEST_SECRET:
            continue
        yield value
        # "Bearer abc": a service may quote only the second half.
        yield from (part for part in value.split() if len(part) >= _SHORTEST_SECRET)
        scheme, _, token = value.partition(" ")
        if scheme == "Basic":
            try:
                yield base64.b64decode(token).decode(errors="replace").partition(":")[2]
            except binascii.Error:
                continue
