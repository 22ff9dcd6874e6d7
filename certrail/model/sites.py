"""Places that take a certificate, and a certificate that lies there beside the live one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from certrail.model.certificates import Fingerprint


@dataclass(frozen=True, slots=True)
class Site:
    """A place on a target that can take a certificate.

    Attributes:
        id: stable on that target (server name and listen address, object id, path).
        names: host names served there.
        listens: ``address:port`` texts; empty where it has none (a vault).
        tls: whether it serves TLS now.
        fingerprint: of the certificate configured now, None if there is none or it cannot be read.
        settings: what the kind of target needs to find it again; JSON values only.
        starttls: protocol in which clients ask for TLS there, "" where it begins at once.
    """

    id: str
    names: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    tls: bool = False
    fingerprint: Fingerprint | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    starttls: str = ""


@dataclass(frozen=True, slots=True)
class Staged:
    """A certificate uploaded beside the live one.

    Attributes:
        site: where it is meant for.
        fingerprint: of the staged leaf.
        replaces: fingerprint that was live at staging, None for nothing.
        summary: what activation will do, for people ("2 files, 1 directive replaced").
        data: what ``activate``, ``restore`` and ``discard`` need; JSON values only, no key.
    """

    site: str
    fingerprint: Fingerprint
    replaces: Fingerprint | None
    summary: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_json` reads back."""
        return {**asdict(self), "data": dict(self.data)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote."""
        return cls(**data)
