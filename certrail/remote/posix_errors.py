"""From an errno, or the words of a command, to an error that says what to do."""

from __future__ import annotations

import errno
import os

from certrail.errors import (
    Conflict,
    ConnectorError,
    NotFound,
    PermissionRefused,
    StorageFull,
    UnexpectedReply,
)
from certrail.log import plain
from certrail.remote.posix_paths import readable

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_ABSENT = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_CONFLICTING = {
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EXDEV,
    errno.EBUSY,
    errno.ETXTBSY,
}
# The words of the C library in the C locale, and those of dash for a redirection.
_WORDS = {
    os.strerror(number).encode(): number
    for number in sorted(_FULL | _REFUSED | _ABSENT | _CONFLICTING)
} | {b"Directory nonexistent": errno.ENOENT}

_UNKNOWN_OWNER = (b"invalid user", b"invalid group", b"unknown user", b"unknown group")


def refusal(number: int, doing: str, path: str, *, host: str, detail: str = "") -> ConnectorError:
    """Return the error for errno *number* met while *doing* (``write``, ``list``, …) *path*."""
    shown = readable(path)
    cause = f"cannot {doing} {shown} on {host}: {plain(detail) or os.strerror(number)}"
    if number in _FULL:
        return StorageFull(
            cause,
            remedy=f"Free space or raise the quota where {shown} lies, then retry.",
            connector=host,
        )
    if number == errno.EROFS:
        return PermissionRefused(
            cause,
            remedy="Mount the file system writable, or configure another directory.",
            connector=host,
        )
    if number in _REFUSED:
        return PermissionRefused(
            cause,
            remedy=f"Let the account {doing} {shown}, or set `sudo: true` for the host.",
            connector=host,
        )
    if number in _ABSENT:
        return NotFound(cause, connector=host)
    if number in _CONFLICTING:
        return Conflict(
            cause, remedy=f"Look at what is at {shown} on the host, then retry.", connector=host
        )
    return UnexpectedReply(
        cause,
        remedy="Look at the host: this is no answer such a request should get.",
        connector=host,
    )


def refusal_in_words(stderr: bytes, doing: str, path: str, *, host: str) -> ConnectorError:
    """Return the error for what a command wrote on its standard error in the C locale."""
    lines = [line for line in stderr.splitlines() if line.strip()] or [b"no reason given"]
    for line in reversed(lines):
        if any(words in line for words in _UNKNOWN_OWNER):
            return unknown_owner(line.decode(errors="replace"), path, host=host)
        if b"cannot overwrite" in line:
            return refusal(errno.EEXIST, doing, path, host=host)
        if number := number_of(line):
            return refusal(number, doing, path, host=host)
    detail = lines[-1].decode(errors="replace")[-300:]
    return refusal(0, doing, path, host=host, detail=detail)


def number_of(line: bytes) -> int:
    """Return the errno whose words in the C locale end *line*, 0 if none does."""
    for words, number in _WORDS.items():
        if line.rstrip().endswith(words):
            return number
    return 0


def unknown_owner(detail: str, path: str, *, host: str) -> NotFound:
    """Return the error for an owner or group that *host* has no name for."""
    return NotFound(
        f"cannot give {readable(path)} on {host} its owner: {plain(detail)}",
        remedy="Create the account or group on the host, or correct the name.",
        connector=host,
    )
