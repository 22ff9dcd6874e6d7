"""Calling AWS: one session for each connector, with deadlines, and its errors in our words.

The SDK is optional (``pip install certrail[aws]``); it is imported only where
a session is opened. It does not retry for us: one retry loop per call path.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from http.client import BadStatusLine
from typing import Any

from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    Throttled,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import plain
from certrail.remote.http_errors import waiting_time

# At DEBUG the SDK logs whole requests, and with them keys and secrets.
for _name in ("boto3", "botocore", "s3transfer"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_MESSAGE_LENGTH = 300
_PAUSE = timedelta(seconds=5)
_UNKNOWN_CALLER = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_SLOW_DOWN = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_ABSENT = frozenset(
    {
        "ListenerNotFound",
        "LoadBalancerNotFound",
        "NoSuchBucket",
        "NoSuchDistribution",
        "NoSuchKey",
        "ResourceNotFoundException",
    }
)
_CHANGED = frozenset(
    {
        "ConditionalRequestConflict",
        "InvalidIfMatchVersion",
        "PreconditionFailed",
        "ResourceExistsException",
    }
)
_NOT_ALLOWED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})


# What describes the services is read once; each file is megabytes of JSON.
_loader_lock = threading.Lock()
_loader: Any = None


class Session:
    """One connector's way to AWS: one SDK session, and a client for each service that is called.

    Made by :func:`session`. The clients may be used by several threads.
    """

    def __init__(self, sdk: Any, options: Mapping[str, Any], secrets: Sequence[str]) -> None:
        self._sdk = sdk
        self._options = options
        self._clients: dict[tuple[str, str], Any] = {}
        # A closure, so that printing the object shows no secret.
        self.hidden: Callable[[], tuple[str, ...]] = lambda: tuple(filter(None, secrets))

    def client(self, service: str, *, region: str = "") -> Any:
        """Return the client of *service*; *region* where it is not the session's.

        Raises:
            InvalidRequest: a setting cannot be right.
        """
        from botocore.exceptions import (  # type: ignore[import-untyped,unused-ignore]
            BotoCoreError,
        )

        key = (service, region)
        if key not in self._clients:
            options = {**self._options, **({"region_name": region} if region else {})}
            try:
                made = self._sdk.client(service, **options)
            except (BotoCoreError, ValueError) as exc:
                raise InvalidRequest(
                    f"AWS cannot be called as configured: {plain(exc)[:_MESSAGE_LENGTH]}",
                    remedy="Check region, endpoint_url and the credential of the connector.",
                ) from exc
            made.meta.events.register("before-parse", _must_be_whole)
            self._clients[key] = made
        return self._clients[key]

    def close(self) -> None:
        """Close the connections of all clients."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@contextmanager
def session(
    *,
    region: str,
    access_key_id: str = "",
    secret_access_key: str = "",
    session_token: str = "",
    endpoint_url: str = "",
    ca_bundle: str = "",
    timeout: timedelta = timedelta(seconds=20),
) -> Iterator[Session]:
    """Open a session for one connector.

    Without an access key, the SDK looks where it always does: environment,
    profile, role of the machine or container.

    Raises:
        InvalidRequest: the SDK is not installed, or a setting cannot be right.
    """
    try:
        import boto3  # type: ignore[import-untyped,unused-ignore]
        from botocore.config import Config  # type: ignore[import-untyped,unused-ignore]
        from botocore.exceptions import (  # type: ignore[import-untyped,unused-ignore]
            BotoCoreError,
        )
    except ImportError as exc:
        raise InvalidRequest(
            "the AWS SDK is not installed on this worker",
            remedy="Install it: pip install 'certrail[aws]'.",
        ) from exc
    seconds = timeout.total_seconds()
    try:
        sdk = boto3.session.Session(
            aws_access_key_id=access_key_id or None,
            aws_secret_access_key=secret_access_key or None,
            aws_session_token=session_token or None,
            region_name=region or None,
            botocore_session=_described(),
        )
    except (BotoCoreError, ValueError) as exc:
        raise InvalidRequest(
            f"AWS cannot be called as configured: {plain(exc)[:_MESSAGE_LENGTH]}",
            remedy="Check the profile and the credential of the connector.",
        ) from exc
    options: dict[str, Any] = {
        "endpoint_url": endpoint_url or None,
        "verify": ca_bundle or None,
        "config": Config(
            connect_timeout=seconds,
            read_timeout=seconds,
            retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"} if endpoint_url else {},
        ),
    }
    with ExitStack() as stack:
        if "-----BEGIN" in ca_bundle:
            # The SDK reads a file, each time that it connects.
            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".pem"))
            file.write(ca_bundle)
            file.flush()
            options["verify"] = file.name
        opened = Session(sdk, options, (secret_access_key, session_token))
        stack.callback(opened.close)
        yield opened


def _described() -> Any:
    """Return a new session of the lower SDK that shares the descriptions of the services."""
    from botocore.session import Session as Lower  # type: ignore[import-untyped,unused-ignore]

    global _loader
    lower = Lower()
    with _loader_lock:
        if _loader is None:
            _loader = lower.get_component("data_loader")
        else:
            lower.register_component("data_loader", _loader)
    return lower


def _must_be_whole(response_dict: Mapping[str, Any] | None = None, **_: object) -> None:
    """Look at a reply before the SDK reads it.

    It would read a body that is shorter than announced as far as it goes, and take a
    refusal without any body for nonsense.
    """
    from botocore.exceptions import ClientError, IncompleteReadError

    reply = response_dict or {}
    body, headers = reply.get("body"), reply.get("headers", {})
    length, status = str(headers.get("content-length", "")), int(reply.get("status_code", 0))
    if isinstance(body, bytes) and length.isdigit() and len(body) < int(length):
        raise IncompleteReadError(actual_bytes=len(body), expected_bytes=int(length))
    if isinstance(body, bytes) and not body.strip() and status >= 400:
        told = {name.lower(): value for name, value in headers.items()}
        meta = {"HTTPStatusCode": status, "HTTPHeaders": told}
        raise ClientError({"Error": {"Code": str(status)}, "ResponseMetadata": meta}, "call")


@contextmanager
def calls(label: str, what: str, *, hide: Sequence[str] = ()) -> Iterator[None]:
    """Turn the SDK's errors inside the block into ours.

    Args:
        label: the connector's name, for people.
        what: is done, for people.
        hide: secrets that must not come back in a message.

    Raises:
        ConnectorError: see :mod:`certrail.remote.http`; the classes mean the same.
        InvalidRequest: the SDK refused the parameters.
    """
    from botocore import exceptions as sdk  # type: ignore[import-untyped,unused-ignore]
    from botocore.parsers import ResponseParserError  # type: ignore[import-untyped,unused-ignore]

    found: Exception
    try:
        yield
    except sdk.ClientError as exc:
        found = _refusal(exc.response, f"{label}: {what}", label, hide)
    except (sdk.NoCredentialsError, sdk.PartialCredentialsError, sdk.CredentialRetrievalError):
        found = AuthenticationFailed(
            f"{label}: {what}: no AWS credential was found",
            remedy="Set access_key_id and secret_access_key, or give the worker a role.",
            connector=label,
        )
    except sdk.ParamValidationError:
        # The SDK's text quotes the parameters, among them the key.
        found = InvalidRequest(f"{label}: {what}: AWS does not take these parameters")
    except (ResponseParserError, KeyError):
        found = UnexpectedReply(
            f"{label}: {what}: the reply is not what the API documents", connector=label
        )
    except sdk.SSLError:
        found = Unreachable(
            f"{label}: {what}: the service's certificate is not trusted",
            remedy="If it is the right service, set ca_bundle to the CA that issued its "
            "certificate and address it by a name the certificate carries.",
            connector=label,
            code="untrusted",
        )
    except (sdk.HTTPClientError, sdk.ConnectionError, sdk.IncompleteReadError) as exc:
        text = type(exc).__name__
        # No HTTP at all; that the other side hung up has a class of its own below it.
        is_noise = any(type(cause) is BadStatusLine for cause in _causes(exc))
        found = (UnexpectedReply if is_noise else Unreachable)(
            f"{label}: {what}: no usable answer ({text})", connector=label
        )
    except sdk.BotoCoreError as exc:
        found = UnexpectedReply(f"{label}: {what}: {plain(type(exc).__name__)}", connector=label)
    else:
        return
    raise found


def _causes(exc: BaseException | None) -> Iterator[object]:
    while exc is not None:
        yield exc
        yield from exc.args
        exc = exc.__cause__ or exc.__context__


def _refusal(
    response: Mapping[str, Any], what: str, label: str, secrets: Sequence[str]
) -> ConnectorError:
    error, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    code, status = str(error.get("Code", "")), int(meta.get("HTTPStatusCode", 0))
    said = str(error.get("Message", ""))
    for secret in secrets:
        if secret:
            said = said.replace(secret, "<hidden>")
    if code.isdigit():
        # Not the error format of this API: a gateway's, perhaps with a known word in it.
        code = next((word for word in _UNKNOWN_CALLER if f">{word}<" in said), code)
    said = plain(" ".join(said.split()))[:_MESSAGE_LENGTH]
    message = f"{what}: {plain(code)} ({status})" + (f": {said}" if said else "")
    kind: type[ConnectorError] = Rejected
    if code in _UNKNOWN_CALLER or status == 401:
        kind = AuthenticationFailed
    elif code in _SLOW_DOWN or status == 429:
        wait = waiting_time(str(meta.get("HTTPHeaders", {}).get("retry-after", "")), _PAUSE)
        return Throttled(message, connector=label, code=code, retry_after=wait)
    elif code in _ABSENT or status in (404, 410):
        kind = NotFound
    elif code in _CHANGED or status in (409, 412):
        kind = Conflict
    elif code in _NOT_ALLOWED or status == 403:
        kind = PermissionRefused
    elif status >= 500:
        kind = Unreachable
    elif status < 400:
        kind = UnexpectedReply
    return kind(message, connector=label, code=code)
