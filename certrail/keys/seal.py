"""Sealing: how private keys and connector secrets rest in a database.

AES-256-GCM under a key that is in neither database: it comes from
``CERTRAIL_KEY`` (base64 of 32 bytes) or a file named by ``CERTRAIL_KEY_FILE``
with one such line per key. The first key seals; the others still open what
they sealed, so that a key can be rotated while requests run.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Never

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from certrail.errors import KeyUnavailable, SealingKeyMissing

SECRET_PURPOSE = "connector-secret"  # noqa: S105 - a label for sealing, not a secret
"""What connector secrets are sealed for."""

_PREFIX = "sealed:v1:"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class Keyring:
    """The sealing keys. Prints as a placeholder and refuses pickling."""

    __slots__ = ("_keys", "primary")

    def __init__(self, keys: Iterable[bytes]) -> None:
        listed = list(keys)
        if not listed:
            raise KeyUnavailable("there is no sealing key")
        self._keys = {_key_id(key): AESGCM(key) for key in listed}
        self.primary = _key_id(listed[0])

    @classmethod
    def from_text(cls, text: str) -> Keyring:
        """Read base64 keys, one on each line; blank lines and ``#`` comments are passed over.

        Raises:
            KeyUnavailable: a line is not base64 of 32 bytes.
        """
        keys = []
        for line in text.splitlines():
            if not (word := line.strip()) or word.startswith("#"):
                continue
            try:
                key = base64.b64decode(word, validate=True)
            except ValueError:
                key = b""
            if len(key) != _KEY_BYTES:
                raise KeyUnavailable(
                    "a sealing key is not base64 of 32 bytes",
                    remedy="Make one with: openssl rand -base64 32",
                )
            keys.append(key)
        return cls(keys)

    @classmethod
    def from_file(cls, path: Path) -> Keyring:
        """Read a key file.

        Raises:
            KeyUnavailable: it cannot be read, or others than its owner can read it.
        """
        try:
            mode = path.stat().st_mode
            text = path.read_text()
        except OSError as exc:
            raise KeyUnavailable(f"cannot read the key file {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise KeyUnavailable(f"the key file {path} holds no text, and so no key") from exc
        if stat.S_IMODE(mode) & 0o077:
            raise KeyUnavailable(
                f"the key file {path} is readable by others than its owner",
                remedy=f"chmod 600 {path}, and think about who may have read it.",
            )
        try:
            return cls.from_text(text)
        except KeyUnavailable as exc:
            raise KeyUnavailable(
                f"the key file {path} cannot be used: {exc}",
                remedy="Put it back as it was: nothing else opens what it sealed. "
                "A first one is made with: openssl rand -base64 32",
            ) from exc

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the keys in their order; the first one seals."""
        return tuple(self._keys)

    def seal(self, plain: bytes, purpose: str) -> str:
        """Return *plain* sealed under the primary key; *purpose* must be given to open it."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._keys[self.primary].encrypt(nonce, plain, purpose.encode())
        return f"{_PREFIX}{self.primary}:{base64.b64encode(nonce + sealed).decode()}"

    def open(self, token: str, purpose: str) -> bytes:
        """Return what was sealed for *purpose*.

        Raises:
            SealingKeyMissing: sealed by a key that is not here.
            KeyUnavailable: the token was altered, or sealed for another purpose.
        """
        try:
            key_id, encoded = token.removeprefix(_PREFIX).split(":", 1)
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as exc:
            raise KeyUnavailable("a sealed value is damaged") from exc
        if (key := self._keys.get(key_id)) is None:
            raise SealingKeyMissing(f"a value was sealed by the key {key_id}, which is not here")
        try:
            return key.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except InvalidTag as exc:
            raise KeyUnavailable("a sealed value was altered or is meant for another use") from exc

    def is_current(self, token: str) -> bool:
        """Return whether *token* was sealed by the primary key."""
        return token.startswith(f"{_PREFIX}{self.primary}:")

    def is_older(self, token: str) -> bool:
        """Return whether *token* was sealed by another of these keys than the primary one."""
        return any(token.startswith(f"{_PREFIX}{one}:") for one in self.ids[1:])

    def __repr__(self) -> str:
        return f"Keyring(<{len(self._keys)} hidden>)"

    def __reduce__(self) -> Never:
        raise TypeError("sealing keys do not leave their process")


def is_sealed(text: str) -> bool:
    """Return whether *text* is a sealed value."""
    return text.startswith(_PREFIX)


def new_key() -> str:
    """Return a fresh random key in the form a key file holds."""
    return base64.b64encode(os.urandom(_KEY_BYTES)).decode()


def stored_keys(key_file: str) -> str:
    """Return the keys of ``CERTRAIL_KEY``, else of *key_file*, as a key file has them.

    Raises:
        KeyUnavailable: the file cannot be read.
    """
    if text := os.environ.get("CERTRAIL_KEY", ""):
        return text
    try:
        return Path(key_file).read_text()
    except OSError as exc:
        raise KeyUnavailable(f"cannot read the key file {key_file}: {exc.strerror}") from exc


def keyring() -> Keyring:
    """Return the keys named by ``CERTRAIL_KEY`` or ``CERTRAIL_KEY_FILE``.

    Raises:
        KeyUnavailable: neither is set, or what they name is no good.
    """
    if text := os.environ.get("CERTRAIL_KEY", ""):
        return _from_text(text)
    if path := os.environ.get("CERTRAIL_KEY_FILE", ""):
        # The modification time is part of the cache key so that a rotated
        # file is seen by workers that keep running.
        file = Path(path)
        try:
            stamp = file.stat().st_mtime_ns
        except OSError as exc:
            raise KeyUnavailable(f"cannot read the key file {path}: {exc.strerror}") from exc
        return _from_file(file, stamp)
    raise KeyUnavailable("neither CERTRAIL_KEY nor CERTRAIL_KEY_FILE is set")


@lru_cache(maxsize=4)
def _from_text(text: str) -> Keyring:
    return Keyring.from_text(text)


@lru_cache(maxsize=4)
def _from_file(path: Path, stamp: int) -> Keyring:
    return Keyring.from_file(path)


def _key_id(key: bytes) -> str:
    return hashlib.sha256(b"certrail key id" + key).hexdigest()[:12]
