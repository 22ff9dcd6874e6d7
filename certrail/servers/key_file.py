"""How files with a private key are written on a host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyFile:
    """How key files are written.

    Attributes:
        mode: permission bits.
        owner, group: "" for the account's own.
    """

    mode: int = 0o600
    owner: str = ""
    group: str = ""
