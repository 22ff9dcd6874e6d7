"""The directory of a CA (RFC 8555 section 7.1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from certrail.errors import UnexpectedReply
from certrail.log import plain


@dataclass(frozen=True, slots=True)
class Directory:
    """Where a CA wants what, and what it offers.

    Attributes:
        new_nonce, new_account, new_order, revoke_cert: URLs.
        renewal_info: URL for renewal information (RFC 9773), "" if not offered.
        terms: URL of the terms of service, "" if there are none.
        eab_required: whether accounts have to be bound to an external one.
        profiles: certificate profiles to a description of each; empty if the CA has none.
    """

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str
    renewal_info: str = ""
    terms: str = ""
    eab_required: bool = False
    profiles: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Directory:
        """Read a directory object.

        Raises:
            UnexpectedReply: it lacks a URL that every CA has.
        """
        missing = [name for name in _NEEDED if not isinstance(data.get(name), str)]
        if missing:
            raise UnexpectedReply(
                f"not an ACME directory: it has no {', '.join(missing)}",
                remedy="Set directory_url to the address of the CA's ACME directory itself.",
            )
        meta = data.get("meta")
        meta = meta if isinstance(meta, Mapping) else {}
        profiles = meta.get("profiles")
        renewal_info, terms = data.get("renewalInfo"), meta.get("termsOfService")
        return cls(
            new_nonce=data["newNonce"],
            new_account=data["newAccount"],
            new_order=data["newOrder"],
            revoke_cert=data.get("revokeCert") or "",
            renewal_info=renewal_info if isinstance(renewal_info, str) else "",
            terms=plain(terms) if isinstance(terms, str) else "",
            eab_required=meta.get("externalAccountRequired") is True,
            profiles={plain(name): plain(text) for name, text in profiles.items()}
            if isinstance(profiles, Mapping)
            else {},
        )


_NEEDED = ("newNonce", "newAccount", "newOrder")
