"""What every connector to AWS asks for, and the session that they call it with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import BaseModel, Field, SecretStr, model_validator

from blocks._base import open_secret
from certrail.remote import aws


class AwsAccess(BaseModel):
    """The fields of a block that calls AWS; without an access key the SDK finds a role itself."""

    access_key_id: str = Field(
        default="", description="Access key; empty: the role of the worker's machine."
    )
    secret_access_key: SecretStr | None = Field(
        default=None, description="Secret of the access key, or a reference to it."
    )
    session_token: SecretStr | None = Field(
        default=None, description="Session token of a temporary access key, or a reference to it."
    )
    endpoint_url: str = Field(
        default="",
        description="Address of the service, such as a VPC endpoint or another service that "
        "speaks its protocol; empty: AWS.",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) of the service; empty: the SDK's."
    )
    timeout: int = Field(default=20, ge=1, le=120, description="Seconds a call may take.")

    @model_validator(mode="after")
    def _key_is_whole(self) -> AwsAccess:
        if bool(self.access_key_id) != (self.secret_access_key is not None):
            raise ValueError("access_key_id and secret_access_key belong together")
        return self

    @contextmanager
    def opened(self, region: str) -> Iterator[aws.Session]:
        """Open a session for *region* ("": that of the environment) with this access."""
        with aws.session(
            region=region,
            access_key_id=self.access_key_id,
            secret_access_key=open_secret(self.secret_access_key),
            session_token=open_secret(self.session_token),
            endpoint_url=self.endpoint_url,
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as session:
            yield session


class AwsRegion(AwsAccess):
    """The same, for a service that has a region."""

    region: str = Field(default="", description="AWS region; empty: that of the environment.")
