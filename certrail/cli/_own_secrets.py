"""The secrets that ``certrail up`` makes at its first start, and finds again at the others."""

from __future__ import annotations

import os
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from certrail.errors import KeyUnavailable
from certrail.keys.seal import Keyring, new_key
from certrail.settings import Settings, write_private

_PREFECT_KEY_BYTES = 32


def sealing_key_file(chosen: Settings, data_dir: Path, say: Callable[[str], None]) -> str:
    """Return the key file, making one when none is named; "" for a key in the environment.

    Raises:
        KeyUnavailable: what is there is no key.
    """
    if chosen.key is not None:
        Keyring.from_text(chosen.key.get_secret_value())
        return ""
    if chosen.key_file is not None:
        path = chosen.key_file.expanduser().resolve()
    else:
        path = data_dir / "certrail.key"
        if not path.exists():
            if _has_run(data_dir):
                raise KeyUnavailable(
                    f"the sealing key {path} is missing: nothing that is stored opens without it",
                    remedy="Put it back: `certrail backup --keys` wrote it too; or name it by "
                    "CERTRAIL_KEY_FILE. If it is lost, write a new one (openssl rand -base64 32) "
                    "with mode 0600, apply the connectors again and reissue what was stored.",
                )
            write_private(path, new_key() + "\n")
            say(f"made the sealing key {path}: back it up, nothing replaces it")
    Keyring.from_file(path)
    return str(path)


def prefect_key(data_dir: Path) -> str:
    """Return the key of the secrets in Prefect's blocks: 32 bytes, base64 for URLs.

    Raises:
        KeyUnavailable: what is there is no such key; Prefect would not start with it.
    """
    path = data_dir / "prefect.key"
    if not path.exists():
        if _has_run(data_dir):
            raise _no_prefect_key(path, "it is missing")
        made = urlsafe_b64encode(os.urandom(_PREFECT_KEY_BYTES))
        write_private(path, made.decode() + "\n")
    text = path.read_bytes().strip()
    try:
        if len(urlsafe_b64decode(text)) == _PREFECT_KEY_BYTES:
            return text.decode()
    except ValueError:
        pass
    raise _no_prefect_key(path, f"it is no base64 of {_PREFECT_KEY_BYTES} bytes")


def _no_prefect_key(path: Path, why: str) -> KeyUnavailable:
    return KeyUnavailable(
        f"{path} does not have the key of the secrets in Prefect's blocks: {why}",
        remedy="Put that file back: `certrail backup --keys` wrote it too. If it is lost, write a "
        "new one (openssl rand -base64 32 | tr +/ -_) with mode 0600 and apply the connectors "
        "again.",
    )


def api_auth(data_dir: Path, say: Callable[[str], None], host: str) -> str:
    """Return ``user:password`` of an API that others can reach at *host*, making it once.

    Raises:
        KeyUnavailable: what is there is not that.
    """
    path = data_dir / "api-auth"
    if not path.exists():
        write_private(path, f"certrail:{secrets.token_urlsafe(24)}\n")
    say(f"{host} is open to others: user and password of the UI are in {path}")
    found = path.read_text(errors="replace").strip()
    if not all(found.partition(":")) or not found.isprintable():
        raise KeyUnavailable(
            f"{path} is not a user and a password, with a colon between them",
            remedy="Correct it, or remove it: then a new password is made.",
        )
    return found


def _has_run(data_dir: Path) -> bool:
    """Whether a Prefect server was started there, which comes after both keys were made."""
    return (data_dir / "logs" / "server.log").exists()
