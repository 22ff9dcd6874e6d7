"""An object in an S3 bucket, of AWS or of anything that speaks its protocol.

Conditional writes (``If-Match``, ``If-None-Match``) make the bucket refuse
our write if somebody else wrote after our look.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

from blocks._aws import AwsRegion
from blocks._base import DeliveryBlock, open_reference
from certrail.connectors import DeliveryTarget, Traits
from certrail.delivery.fields import same
from certrail.delivery.objects import ObjectSettings, checked_path
from certrail.errors import AuthenticationFailed, NotFound, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site
from certrail.remote import aws

_LARGEST = 4 * 1024 * 1024


class S3Bucket(AwsRegion, DeliveryBlock):
    """Store certificates as objects in an S3 bucket."""

    _block_type_name = "Certrail delivery: S3"
    _block_type_slug = "delivery-s3"

    bucket: str = Field(min_length=3, description="Name of the bucket.")
    prefix: str = Field(default="", description="What every key starts with, such as certs/.")
    kms_key_id: str = Field(
        default="", description="KMS key to encrypt with; empty: what the bucket does by itself."
    )
    conditional: bool = Field(
        default=True, description="Use conditional writes; switch off for services without them."
    )

    @contextmanager
    def connect(self) -> Iterator[DeliveryTarget]:
        """Open the bucket."""
        with self.opened(self.region) as session:
            yield _S3Delivery(session.client("s3"), self)


class _S3Delivery(DeliveryTarget):
    traits: ClassVar[Traits] = Traits(
        transactional=True, restores_by="the bucket keeps older versions, if it is told to"
    )

    def __init__(self, client: Any, block: S3Bucket) -> None:
        self._client = client
        self._label = block.label
        self._bucket = block.bucket
        self._prefix = block.prefix
        self._conditional = block.conditional
        self._kms_key_id = block.kms_key_id

    def check(self) -> str:
        with aws.calls(self._label, f"list {self._bucket}"):
            reply = self._client.list_objects_v2(
                Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1
            )
            name = reply["Name"]
        return f"the bucket {plain(name)} answers"

    def delivered(self, site: Site) -> Fingerprint | None:
        settings = ObjectSettings.parse(site.settings)
        body, _ = self._read(self._key(site))
        found = settings.bundle_in(body, open_reference) if body is not None else None
        return found.chain.fingerprint if found else None

    def deliver(self, site: Site, bundle: Bundle) -> str:
        bundle.must_match()
        settings, key = ObjectSettings.parse(site.settings), self._key(site)
        content = settings.body_of(bundle, open_reference)
        body, tag = self._read(key)
        if body is not None and self._holds(settings, body, bundle):
            return f"s3://{self._bucket}/{plain(key)} had it already"
        more: dict[str, str] = {}
        if self._conditional:
            more = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"} if body is None else {}
        if self._kms_key_id:
            more |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self._kms_key_id}
        with aws.calls(self._label, f"write {plain(key)}"):
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=content,
                ContentType=settings.content_type,
                **more,
            )
        effect("s3.deliver", connector=self._label, bucket=self._bucket, key=key)
        return f"s3://{self._bucket}/{plain(key)}, {len(content)} bytes"

    def _holds(self, settings: ObjectSettings, body: bytes, bundle: Bundle) -> bool:
        try:
            return same(settings.bundle_in(body, open_reference), bundle)
        except AuthenticationFailed:
            return False  # the container's password has changed

    def _key(self, site: Site) -> str:
        return self._prefix + checked_path(site.id)

    def _read(self, key: str) -> tuple[bytes | None, str]:
        try:
            with aws.calls(self._label, f"read {plain(key)}"):
                reply = self._client.get_object(Bucket=self._bucket, Key=key)
                if int(reply.get("ContentLength", 0)) > _LARGEST:
                    raise UnexpectedReply(
                        f"{self._label}: {plain(key)} is no certificate: it is too large",
                        remedy="Deliver under another name.",
                        connector=self._label,
                    )
                return reply["Body"].read(), str(reply.get("ETag", ""))
        except NotFound as exc:
            if exc.code == "NoSuchKey":
                return None, ""
            raise
