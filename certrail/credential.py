"""The one file by which an agent or a sensor on another machine gets in.

A key file (one base64 key on each line) whose comments say where that lies
which the keys open, so that it can stand wherever a key file can.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import Path

from certrail.errors import InvalidRequest

HEAD = "# Certrail credential"
_DATABASE, _API = "#: database ", "#: api "


@dataclass(frozen=True, slots=True)
class Credential:
    """What it says.

    Attributes:
        database_url: the inventory database, with an account's password.
        api_auth: ``user:password`` of Prefect's API, "" where it asks for none.
        keys: the sealing keys, as in a key file.
    """

    database_url: str = field(repr=False)
    api_auth: str = field(default="", repr=False)
    keys: str = field(default="", repr=False)

    def to_text(self) -> str:
        """Return the file's content."""
        lines = [
            f"{HEAD}: who has this file opens all that the installation stores.",
            f"{_DATABASE}{self.database_url}",
            *([f"{_API}{self.api_auth}"] if self.api_auth else []),
            *(line for line in self.keys.splitlines() if line.strip() and line[0] != "#"),
        ]
        return "\n".join(lines) + "\n"


def is_credential(text: str) -> bool:
    """Whether a key file is the credential of another machine."""
    return text.startswith(HEAD)


def read(path: Path) -> Credential:
    """Read the file that ``certrail executor credential`` wrote.

    Raises:
        InvalidRequest: it is missing, is something else, or others than its owner can read it.
    """
    try:
        text, mode = path.read_text(), path.stat().st_mode
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is no text"
        raise InvalidRequest(f"cannot read the credential {path}: {why}") from exc
    if stat.S_IMODE(mode) & 0o077:
        raise InvalidRequest(
            f"the credential {path} is readable by others than its owner",
            remedy=f"chmod 600 {path}, and think about who may have read it.",
        )
    found = {
        word: line.removeprefix(word)
        for line in text.splitlines()
        for word in (_DATABASE, _API)
        if line.startswith(word)
    }
    if not is_credential(text) or _DATABASE not in found:
        raise InvalidRequest(
            f"{path} is no credential",
            remedy="Make one on the server: certrail executor credential -o FILE",
        )
    return Credential(found[_DATABASE], found.get(_API, ""), text)
