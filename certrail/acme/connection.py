"""HTTP with one ACME CA: signed requests, nonces, limits, and no step off its origin.

Signatures, keys and messages are the ``acme`` library's. Its network class is
not used: it repeats a refused nonce only once, follows redirects anywhere,
reads replies of any length, and one instance serves one account and one thread.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi
import urllib3
from josepy.b64 import b64decode, b64encode
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, SSLError

from certrail import __version__
from certrail.acme.directory import Directory
from certrail.acme.origin import Origin, Origins
from certrail.acme.reply import Reply
from certrail.acme.signing import Signer
from certrail.errors import InvalidRequest, UnexpectedReply, Unreachable
from certrail.log import logger, plain

NONCE_ATTEMPTS = 25
"""How often one request is sent. With every second nonce refused, one in 33 million fails."""

_TIMEOUT = urllib3.Timeout(connect=10, read=45)
_DEADLINE = timedelta(seconds=90)
_LIMIT = 1024 * 1024
_REDIRECTS = 5
_DIRECTORY_AGE = timedelta(minutes=5)
_POOL = 64
_HEADERS = {
    "User-Agent": f"certrail/{__version__}",
    "Accept-Language": "en",
    # A compressed reply could be far longer than what was limited.
    "Accept-Encoding": "identity",
}


class Connection:
    """The way to one CA. Safe to use from many threads; see :func:`connection`."""

    def __init__(self, directory_url: str, ca_bundle: str, origins: Origins, label: str) -> None:
        self.directory_url = directory_url
        self.label = label
        self._origins = origins
        self._ca_bundle = ca_bundle
        self._pool = _pool(directory_url, _trust(directory_url, ca_bundle))
        # Old nonces are the first to be refused, so the newest is used first.
        self._nonces: deque[bytes] = deque(maxlen=_POOL * 2)
        self._directory: tuple[float, Directory] | None = None
        self._guard = threading.Lock()

    def check(self, url: object) -> str:
        """Return *url*, which the CA sent, if it may be followed; else UnexpectedReply."""
        return self._origins.check(url)

    def directory(self) -> Directory:
        """Return the CA's directory, at most some minutes old."""
        known = self._directory
        if known is None or known[0] < time.monotonic():
            with self._guard:
                known = self._directory
                if known is None or known[0] < time.monotonic():
                    read = Directory.parse(self.get(self.directory_url, "directory").json())
                    known = (time.monotonic() + _DIRECTORY_AGE.total_seconds(), read)
                    self._directory = known
        return known[1]

    def get(self, url: str, doing: str) -> Reply:
        """Fetch *url* without a signature: the directory and renewal information only."""
        return self._success(self._follow("GET", url, doing), doing)

    def post(
        self, url: str, payload: bytes, signer: Signer, doing: str, *, accept: str = ""
    ) -> Reply:
        """Send *payload* signed; a refused nonce is replaced and the request sent again.

        Args:
            url: where to; held to the allowed origins.
            payload: what is signed; empty for a fetch (POST-as-GET).
            signer: who signs.
            doing: what this is, for error messages.
            accept: media type wanted, "" for JSON.
        """
        url = self.check(url)
        headers = {**_HEADERS, "Content-Type": "application/jose+json"}
        if accept:
            headers["Accept"] = accept
        nonce = self._take_nonce()
        for _ in range(NONCE_ATTEMPTS):
            body = signer.sign(url, payload, nonce)
            reply = self._send("POST", url, doing, headers=headers, body=body)
            fresh = _nonce(reply)
            if reply.status >= 400 and reply.problem.code == "badNonce":
                logger.debug("%s: %s refused a nonce", self.label, doing)
                nonce = fresh or self._new_nonce()
                continue
            if fresh is not None:
                self._nonces.append(fresh)
            return self._success(reply, doing)
        raise reply.problem.error(f"{doing} (tried {NONCE_ATTEMPTS} nonces)", connector=self.label)

    def new_nonce(self) -> None:
        """Fetch a nonce and keep it: the cheapest request that shows the CA is at work."""
        self._nonces.append(self._new_nonce())

    def _take_nonce(self) -> bytes:
        try:
            return self._nonces.pop()
        except IndexError:
            return self._new_nonce()

    def _new_nonce(self) -> bytes:
        reply = self._success(self._follow("HEAD", self.directory().new_nonce, "nonce"), "nonce")
        if (nonce := _nonce(reply)) is None:
            raise UnexpectedReply(
                f"{plain(reply.url)} answered without a usable Replay-Nonce header",
                remedy="Check that the proxy in front of the CA passes this header on.",
                connector=self.label,
            )
        return nonce

    def _success(self, reply: Reply, doing: str) -> Reply:
        if 200 <= reply.status < 300:
            return reply
        if 300 <= reply.status < 400:
            raise UnexpectedReply(
                f"{doing}: {plain(reply.url)} redirects a request that cannot be redirected",
                remedy="Give the directory's final address as directory_url.",
                connector=self.label,
            )
        problem = reply.problem
        if (
            not problem.type
            and reply.status < 500
            and reply.status not in (401, 403, 404, 410, 429)
        ):
            raise UnexpectedReply(
                f"{doing}: {plain(reply.url)} answered {reply.status} without saying why: "
                f"{reply.start}",
                connector=self.label,
            )
        raise problem.error(doing, connector=self.label, retry_after=reply.retry_after)

    def _follow(self, method: str, url: str, doing: str) -> Reply:
        for _ in range(_REDIRECTS + 1):
            reply = self._send(method, self.check(url), doing, headers=_HEADERS)
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            url = reply.location()
        raise UnexpectedReply(
            f"{doing}: more than {_REDIRECTS} redirects, the last to {plain(url)}",
            connector=self.label,
        )

    def _send(
        self,
        method: str,
        url: str,
        doing: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Reply:
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=headers,
                timeout=_TIMEOUT,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                content = self._read(response, url, doing)
            except BaseException:
                response.close()
                raise
            response.release_conn()
        except HTTPError as exc:
            self._unreachable(url, doing, exc)
        return Reply(url, response.status, response.headers, content, self.label)

    def _read(self, response: urllib3.BaseHTTPResponse, url: str, doing: str) -> bytes:
        deadline = time.monotonic() + _DEADLINE.total_seconds()
        content = bytearray()
        while part := response.read1(65536):
            content += part
            if len(content) > _LIMIT:
                raise UnexpectedReply(
                    f"{doing}: the reply of {plain(url)} is longer than {_LIMIT} bytes",
                    connector=self.label,
                )
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"{doing}: {plain(url)} was still sending its reply after "
                    f"{_DEADLINE.total_seconds():.0f} s",
                    connector=self.label,
                )
        return bytes(content)

    def _unreachable(self, url: str, doing: str, exc: HTTPError) -> NoReturn:
        reason, remedy = plain(exc), ""
        if isinstance(exc, SSLError):
            reason, remedy = self._tls_trouble(url, reason)
        elif isinstance(exc, ProtocolError | IncompleteRead):
            reason = f"the connection ended before the reply was complete ({reason})"
        raise Unreachable(
            f"{doing}: {plain(url)}: {reason}", remedy=remedy, connector=self.label
        ) from exc

    def _tls_trouble(self, url: str, reason: str) -> tuple[str, str]:
        host = urlsplit(url).hostname
        if "mismatch" in reason:
            return (
                f"its certificate is for another name ({reason})",
                f"Use the name that its certificate carries in directory_url; {host} is not in it.",
            )
        if "expired" in reason:
            return (
                f"the directory's own TLS certificate has expired ({reason})",
                "Renew the TLS certificate of the CA's directory; check this machine's clock too.",
            )
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            trusted = _shown(self._ca_bundle) or "the system's trust store"
            return (
                f"its certificate is not trusted ({reason}); trusted is what {trusted} holds",
                "Set ca_bundle of the connector to a PEM file with the root that the "
                "directory's own TLS certificate chains to.",
            )
        return f"TLS failed ({reason})", "Check that the address and port speak TLS 1.2 or newer."


def connection(
    directory_url: str, *, ca_bundle: str = "", allowed_origins: tuple[str, ...] = (), label: str
) -> Connection:
    """Return the way to a CA; the same settings give the same object in this process.

    So connections, nonces and the directory outlive a connector, which is
    opened anew for every step.

    Raises:
        InvalidRequest: a URL or the bundle cannot be used.
    """
    origins = Origins(directory_url, allowed_origins)
    try:
        is_path = ca_bundle and not _is_pem(ca_bundle)
        changed = os.stat(ca_bundle).st_mtime_ns if is_path else 0
    except OSError as exc:
        raise InvalidRequest(
            f"cannot read the ca_bundle {ca_bundle}: {exc.strerror}",
            remedy="Give the path of a PEM file that the worker's account can read.",
        ) from exc
    # A forked child must not write into its parent's connections.
    key = (os.getpid(), directory_url, ca_bundle, changed, allowed_origins, label)
    with _known_guard:
        if (found := _known.get(key)) is None:
            found = _known[key] = Connection(directory_url, ca_bundle, origins, label)
        _known.move_to_end(key)
        while len(_known) > _POOL:
            _known.popitem(last=False)
        return found


_known: OrderedDict[tuple[object, ...], Connection] = OrderedDict()
_known_guard = threading.Lock()


def _nonce(reply: Reply) -> bytes | None:
    """Return the reply's nonce decoded; None if it has none or it is not base64url."""
    text = reply.headers.get("Replay-Nonce", "")
    try:
        nonce: bytes = b64decode(text)
    except (ValueError, TypeError):
        return None
    # Nonces are signed in decoded form, so one that would come out otherwise cannot be used.
    return nonce if nonce and b64encode(nonce).decode() == text.rstrip("=") else None


def _is_pem(ca_bundle: str) -> bool:
    return "-----BEGIN" in ca_bundle


def _shown(ca_bundle: str) -> str:
    return "the PEM text given" if _is_pem(ca_bundle) else ca_bundle


def _trust(directory_url: str, ca_bundle: str) -> ssl.SSLContext | None:
    if not directory_url.startswith("https:"):
        return None
    try:
        if ca_bundle:
            pem = _is_pem(ca_bundle)
            return ssl.create_default_context(
                cafile=None if pem else ca_bundle, cadata=ca_bundle if pem else None
            )
    except (ssl.SSLError, OSError) as exc:
        raise InvalidRequest(
            f"cannot use the ca_bundle {_shown(ca_bundle)}: {exc}",
            remedy="It must hold at least one CA certificate in PEM.",
        ) from exc
    paths = ssl.get_default_verify_paths()
    folder = Path(paths.capath) if paths.capath else None
    has_system_store = bool(paths.cafile) or (folder is not None and any(folder.iterdir()))
    return ssl.create_default_context(cafile=None if has_system_store else certifi.where())


def _pool(directory_url: str, trust: ssl.SSLContext | None) -> urllib3.PoolManager:
    settings: dict[str, Any] = {"maxsize": _POOL, "num_pools": 8}
    if trust is not None:
        settings["ssl_context"] = trust
    origin = Origin.of(directory_url)
    proxy = getproxies().get(origin.scheme)
    if proxy and not origin.is_loopback and not proxy_bypass(origin.host):
        return urllib3.ProxyManager(proxy, **settings)
    return urllib3.PoolManager(**settings)
