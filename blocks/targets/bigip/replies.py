"""What a BIG-IP answers, as far as it is read here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from certrail.model import Fingerprint
from certrail.remote import http


class Named(BaseModel):
    """Anything that has a name in a partition."""

    fullPath: str  # noqa: N815


class CertFile(Named):
    """A certificate file."""

    fingerprint: str = ""
    subjectAlternativeName: str = ""  # noqa: N815

    @property
    def sha256(self) -> Fingerprint | None:
        """Return its fingerprint; None where the device tells none."""
        kind, _, digits = self.fingerprint.partition("/")
        text = digits.replace(":", "").lower()
        return Fingerprint(text) if kind == "SHA256" and len(text) == 64 else None

    @property
    def names(self) -> tuple[str, ...]:
        """Return its DNS names."""
        parts = (part.strip() for part in self.subjectAlternativeName.split(","))
        return tuple(part[4:].lower() for part in parts if part.startswith("DNS:"))


class Profile(Named):
    """A client-SSL profile, with its certificates."""

    certKeyChain: list[dict[str, Any]] = []  # noqa: N815


class Reference(BaseModel):
    """What a reference was expanded to."""

    items: list[Named] = []


class Virtual(Named):
    """A virtual server."""

    destination: str = ""
    profilesReference: Reference = Reference()  # noqa: N815

    @property
    def profiles(self) -> set[str]:
        """Return the names of its profiles."""
        return {one.fullPath for one in self.profilesReference.items}


class Device(BaseModel):
    """One device of a pair, or the only one."""

    name: str = ""
    version: str = ""
    selfDevice: str = ""  # noqa: N815
    failoverState: str = ""  # noqa: N815


class Group(Named):
    """A device group."""

    type: str = ""
    autoSync: str = ""  # noqa: N815


class Stats(BaseModel):
    """Nested statistics: by name, a text or more of the same."""

    entries: dict[str, Any] = {}

    def texts(self, name: str) -> Iterator[str]:
        """Yield every text called *name*, however deep."""
        for key, value in self.entries.items():
            if not isinstance(value, dict):
                continue
            if key == name and isinstance(value.get("description"), str):
                yield value["description"]
            if isinstance(nested := value.get("nestedStats"), dict):
                yield from http.shaped(nested, Stats, "BIG-IP").texts(name)
