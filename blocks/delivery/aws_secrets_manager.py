"""A secret in AWS Secrets Manager: a JSON object with a field for each part.

The service has no conditional write. It has something that does as well: a
new version is stored first without being current, and the label AWSCURRENT is
then moved to it *from the version we read*, which the service refuses if the
label has moved since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

from blocks._aws import AwsRegion
from blocks._base import DeliveryBlock, open_reference
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.fields import FieldSettings, same
from certrail.delivery.objects import checked_path
from certrail.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    PermissionRefused,
    Rejected,
    UnexpectedReply,
)
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote import aws

_CURRENT = "AWSCURRENT"
_NEW = "CERTRAIL_NEW"
# Characters that the service takes in a name (CreateSecret).
_ALLOWED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_+=.@-")


class AwsSecretsManager(AwsRegion, DeliveryBlock):
    """Store certificates in AWS Secrets Manager."""

    _block_type_name = "Certrail delivery: AWS Secrets Manager"
    _block_type_slug = "delivery-aws-secrets-manager"

    prefix: str = Field(
        default="", description="What the name of every secret starts with, such as tls/."
    )
    kms_key_id: str = Field(
        default="", description="KMS key for secrets that are made; empty: the account's own."
    )

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the service."""
        with self.opened(self.region) as session:
            yield _SecretsManagerDelivery(session.client("secretsmanager"), self)


class _SecretsManagerDelivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by="the service keeps the version before (AWSPREVIOUS)"
    )

    def __init__(self, client: Any, block: AwsSecretsManager) -> None:
        self._client = client
        self._label = block.label
        self._prefix = block.prefix
        self._kms_key_id = block.kms_key_id

    def check(self) -> str:
        try:
            with aws.calls(self._label, "list secrets"):
                _ = self._client.list_secrets(MaxResults=1)["SecretList"]
        except PermissionRefused:
            return "the credential is good; it may not list secrets, which is not needed"
        return "the credential is good"

    def delivered(self, site: Site) -> Fingerprint | None:
        settings = FieldSettings.parse(site.settings)
        fields, _ = self._read(self._name(site))
        found = settings.bundle_in(site, fields, open_reference)
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings, name = FieldSettings.parse(site.settings), self._name(site)
        ours = settings.fields_of(site, bundle, open_reference)
        fields, version = self._read(name)
        if self._holds(settings, site, fields, bundle):
            return f"the secret {name} had it already"
        text = json.dumps({**fields, **ours})
        # The same content after the same version is the same version, so that a
        # repeated call after a lost answer adds nothing.
        token = hashlib.sha256(f"{name}\0{version}\0{text}".encode()).hexdigest()
        if version:
            self._replace(name, text, token, version)
        else:
            self._create(name, text, token)
        effect("secretsmanager.deliver", connector=self._label, name=name, version=token)
        return f"the secret {name}, version {token[:8]}…"

    def _create(self, name: str, text: str, token: str) -> None:
        more = {"KmsKeyId": self._kms_key_id} if self._kms_key_id else {}
        with aws.calls(self._label, f"create {name}"):
            self._client.create_secret(
                Name=name, SecretString=text, ClientRequestToken=token, **more
            )

    def _replace(self, name: str, text: str, token: str, version: str) -> None:
        with aws.calls(self._label, f"write {name}"):
            self._client.put_secret_value(
                SecretId=name, SecretString=text, ClientRequestToken=token, VersionStages=[_NEW]
            )
        try:
            with aws.calls(self._label, f"switch {name}"):
                self._client.update_secret_version_stage(
                    SecretId=name,
                    VersionStage=_CURRENT,
                    MoveToVersionId=token,
                    RemoveFromVersionId=version,
                )
        except Rejected as exc:
            if exc.code != "InvalidParameterException":
                raise
            raise Conflict(
                f"{self._label}: somebody else wrote the secret {name} in the meantime",
                connector=self._label,
                code=exc.code,
            ) from exc

    def _holds(
        self, settings: FieldSettings, site: Site, fields: dict[str, Any], bundle: Bundle
    ) -> bool:
        try:
            found = settings.bundle_in(site, fields, open_reference)
        except AuthenticationFailed:
            return False  # the container's password has changed
        return same(found, bundle, settings)

    def _name(self, site: Site) -> str:
        name = self._prefix + checked_path(site.id)
        if set(name) - _ALLOWED:
            raise InvalidRequest(
                f"not a name that Secrets Manager takes: {plain(name)}",
                remedy="Use letters, digits and /_+=.@- in `site` and in the prefix.",
            )
        return name

    def _read(self, name: str) -> tuple[dict[str, Any], str]:
        """Return the fields and the current version, "" for a secret that is not there."""
        try:
            with aws.calls(self._label, f"read {name}"):
                reply = self._client.get_secret_value(SecretId=name, VersionStage=_CURRENT)
                version = str(reply["VersionId"])
        except NotFound:
            return {}, ""
        try:
            fields = json.loads(reply.get("SecretString", ""))
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise UnexpectedReply(
                f"{self._label}: the secret {name} is there and is no JSON object",
                remedy="Deliver under another name, or remove that secret first.",
                connector=self._label,
            )
        return fields, version
