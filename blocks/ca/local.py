"""A CA on the worker's own disk: for machines inside, laboratories and trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field, SecretStr, field_validator

from blocks._base import CaBlock, open_secret
from certrail.ca.authority import Design, network
from certrail.ca.local import LocalCa, Rules
from certrail.errors import InvalidRequest
from certrail.names import Name


class LocalAuthority(CaBlock):
    """Issue from a root and an intermediate that Certrail makes and keeps in a folder.

    Every worker that uses it has to see the same folder. Clients have to trust
    ``authority/root.pem`` in it. ``authority/root.key`` is not needed for issuing and
    may be moved to a safe place.
    """

    _block_type_name = "Certrail CA: on disk"
    _block_type_slug = "ca-local"

    ca_dir: str = Field(
        description="Absolute path of the CA's folder on the worker; made at the first order."
    )
    name: str = Field(
        default="Certrail Local CA",
        min_length=1,
        max_length=50,
        description="Common name of a new root; without effect on a CA that exists.",
    )
    root_lifetime_days: int = Field(
        default=7300, ge=1, le=36500, description="Validity of a new root in days."
    )
    intermediate_lifetime_days: int = Field(
        default=3650, ge=1, le=36500, description="Validity of a new intermediate in days."
    )
    lifetime_days: int = Field(
        default=90, ge=1, le=825, description="Validity of certificates in days."
    )
    profiles: dict[str, int] = Field(
        default_factory=dict,
        description="Other validities in days, by the name that a profile's ca_profile gives.",
    )
    max_validity_days: int = Field(
        default=398, ge=1, le=825, description="No certificate is valid for more days than this."
    )
    permitted_names: list[str] = Field(
        default_factory=list,
        description="DNS suffixes and networks (10.0.0.0/8) that the CA may issue for; all if "
        "empty. A new intermediate carries them as name constraints for good.",
    )
    client_auth: bool = Field(
        default=False, description="Also allow the certificates for client authentication."
    )
    crl_url: str = Field(
        default="",
        description="Address at which you serve the CA's crl.pem; certificates then name it.",
    )
    key_password: SecretStr | None = Field(
        default=None, description="Password that the CA's key files are encrypted with."
    )

    @field_validator("permitted_names")
    @classmethod
    def _check_names(cls, permitted: list[str]) -> list[str]:
        for text in permitted:
            try:
                if network(text) is None and Name.parse(text.lstrip(".")).is_wildcard:
                    raise ValueError(f"{text} is a wildcard; write the suffix alone")
            except InvalidRequest as exc:
                raise ValueError(str(exc)) from exc
        return [text.lower() for text in permitted]

    @field_validator("profiles")
    @classmethod
    def _check_profiles(cls, profiles: dict[str, int]) -> dict[str, int]:
        if any(days < 1 for days in profiles.values()):
            raise ValueError("a profile's validity has at least one day")
        return profiles

    @contextmanager
    def connect(self) -> Iterator[LocalCa]:
        """Open the CA; nothing is made before the first order."""
        most = self.max_validity_days
        yield LocalCa(
            self.ca_dir,
            design=Design(
                name=self.name,
                root_lifetime=timedelta(days=self.root_lifetime_days),
                intermediate_lifetime=timedelta(days=self.intermediate_lifetime_days),
                permitted=tuple(self.permitted_names),
            ),
            rules=Rules(
                lifetime=timedelta(days=min(self.lifetime_days, most)),
                profiles={
                    name: timedelta(days=min(days, most)) for name, days in self.profiles.items()
                },
                permitted=tuple(self.permitted_names),
                client_auth=self.client_auth,
                crl_url=self.crl_url,
            ),
            password=open_secret(self.key_password),
            label=self.label,
        )
