"""What PowerShell, WinRM and the way there say, as errors of ours.

Codes: ``wsmerror.h`` (``ERROR_WSMAN_QUOTA_*``); categories: "ErrorCategory Enum" of
System.Management.Automation. Both are the same in every language of Windows.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from certrail.errors import (
    AuthenticationFailed,
    Busy,
    ConnectorError,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import plain

GRACE = timedelta(seconds=5)

_MESSAGE_LENGTH = 300
_ACCESS_DENIED = 5
_QUOTAS = (
    frozenset(range(0x803381A5, 0x803381A9)) | {0x803381AB} | set(range(0x803381E4, 0x803381E9))
)
_OBJECT_NOT_FOUND, _PERMISSION_DENIED, _SECURITY_ERROR = 13, 18, 25
_UNAUTHORIZED = ("System.UnauthorizedAccessException", "System.Security.SecurityException")

ADMINISTRATOR = (
    "Use an account that is in the machine's group Administrators. For a local account other "
    "than the built-in Administrator, LocalAccountTokenFilterPolicy has to be 1, or remote "
    "logons lose that right."
)
_MODULE = (
    "On the machine: Install-WindowsFeature Web-Scripting-Tools (the module WebAdministration). "
    "Commands of it are run by Windows PowerShell 5.1."
)
_LOGIN = (
    "Correct account and password. For a local account write MACHINE\\name with negotiate; basic "
    "takes local accounts only, and only where WSMan:\\localhost\\Service\\Auth\\Basic is true."
)


def command_error(what: str, label: str, records: Sequence[Any]) -> ConnectorError:
    """Return what a pipeline failed with; the first record is the cause."""
    if not records:
        return Rejected(f"{what} failed without saying why", connector=label)
    record = records[0]
    code = plain(record.fq_error or "")[:200]
    message = f"{what}: {_words(record)}"
    more: dict[str, Any] = {"connector": label, "code": code}
    if code.startswith("Modules_ModuleNotFound") or code == "CommandNotFoundException":
        return NotFound(message, remedy=_MODULE, **more)
    if record.category in (_PERMISSION_DENIED, _SECURITY_ERROR) or _is_unauthorized(record):
        return PermissionRefused(message, remedy=ADMINISTRATOR, **more)
    if record.category == _OBJECT_NOT_FOUND:
        return NotFound(message, **more)
    return Rejected(message, **more)


def protocol_error(exc: BaseException, what: str, label: str) -> ConnectorError:
    """Return what kept a command from being run, or its outcome from being told."""
    names = {kind.__name__ for cause in _causes(exc) for kind in type(cause).__mro__}
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Unreachable(
                f"{what}: the server's certificate is not trusted ({_verify_message(cause)})",
                remedy="If it is the right server, set ca_bundle to the CA that issued the "
                "certificate of its WinRM listener and address it by a name that it carries.",
                connector=label,
                code="untrusted",
            )
    if "AuthenticationError" in names or "SpnegoError" in names:
        return AuthenticationFailed(
            f"{what}: WinRM refused the account", remedy=_LOGIN, connector=label
        )
    if "WSManFaultError" in names:
        return _fault(exc, what, label)
    if isinstance(exc, TimeoutError) or names & {"ReadTimeout", "ConnectTimeout"}:
        return Unreachable(f"{what}: no answer in time", connector=label, code="timeout")
    if "TooManyRedirects" in names:
        return UnexpectedReply(f"{what}: answered with a redirect", connector=label)
    if "BadStatusLine" in names and "RemoteDisconnected" not in names:
        return UnexpectedReply(f"{what}: the answer is not HTTP", connector=label)
    if names & {"RequestException", "IncompleteRead"} or isinstance(exc, OSError):
        return Unreachable(
            f"{what}: no usable answer ({type(exc).__name__})",
            remedy="Check that WinRM listens there with HTTPS (winrm enumerate winrm/config/"
            "listener), its firewall rule, address and port, then retry.",
            connector=label,
        )
    return UnexpectedReply(
        f"{what}: the answer is not that of WinRM ({type(exc).__name__})", connector=label
    )


def _fault(exc: Any, what: str, label: str) -> ConnectorError:
    # The code is the first argument of pypsrp's error, the reason the third.
    code = exc.args[0] if exc.args else None
    said = plain(" ".join(str(exc.args[2] or "").split()))[:_MESSAGE_LENGTH] if exc.args[2:] else ""
    message = f"{what}: {said or 'WinRM refused it'} ({plain(code)})"
    more: dict[str, Any] = {"connector": label, "code": plain(code)}
    if code == _ACCESS_DENIED:
        return PermissionRefused(message, remedy=ADMINISTRATOR, **more)
    if code in _QUOTAS:
        return Busy(
            message,
            remedy="Close sessions that are left open, or raise MaxShellsPerUser (winrm "
            "get winrm/config/winrs), then retry.",
            **more,
        )
    return Rejected(message, **more)


def _is_unauthorized(record: Any) -> bool:
    types = getattr(record.exception, "types", None) or ()
    return any(name.removeprefix("Deserialized.") in _UNAUTHORIZED for name in types)


def _words(record: Any) -> str:
    """Return PowerShell's own sentence; it is in the exception."""
    exception = record.exception
    for part in ("adapted_properties", "extended_properties"):
        if found := getattr(exception, part, {}).get("Message"):
            return plain(" ".join(str(found).split()))[:_MESSAGE_LENGTH]
    return plain(" ".join(str(record.message or record.fq_error).split()))[:_MESSAGE_LENGTH]


def _verify_message(exc: ssl.SSLCertVerificationError) -> str:
    # The attribute is there only where OpenSSL itself raised it.
    return plain(getattr(exc, "verify_message", "") or "it cannot be verified")


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """Yield *exc*, what it was raised from, and what the libraries wrapped in it."""
    pending, seen = [exc], set()
    while pending:
        one = pending.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        pending += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
