"""F5 BIG-IP through iControl REST.

Calls (F5 "iControl REST User Guide" for 14.1: "Transactions", "Working with
large files"; F5's own modules ``bigip_ssl_key_cert`` and ``bigip_profile_client_ssl``
of F5Networks/f5-ansible; looked up November 2026):

* ``POST /mgmt/shared/authn/login`` gives a token for ``X-F5-Auth-Token``, good for
  1200 seconds; ``DELETE /mgmt/shared/authz/tokens/…`` ends it;
* ``POST /mgmt/shared/file-transfer/uploads/NAME`` with ``Content-Range``, at most
  1 MiB at a time, then ``POST /mgmt/tm/sys/file/ssl-cert`` and ``ssl-key`` with
  ``sourcePath``;
* ``PATCH /mgmt/tm/ltm/profile/client-ssl/…`` with the whole ``certKeyChain``, because
  certificate and key set in two calls do not match in between;
* ``POST /mgmt/tm/transaction``, calls with ``X-F5-REST-Coordination-Id``, and
  ``PATCH {"state": "VALIDATING"}``, which does all or nothing;
* ``POST /mgmt/tm/sys/config {"command": "save"}``, and ``POST /mgmt/tm/cm`` with
  ``config-sync to-group``; before anything is changed, ``GET /mgmt/tm/cm/sync-status``, whose
  ``status`` is "Changes Pending" while somebody's changes wait for that (the module
  ``bigip_configsync_action``; F5 "Managing Configuration Synchronization" for 14.1).

No device was at hand: this was tried against a fake made from these sources only.
Not verified: the longest object name; that ``fingerprint`` of ``ssl-cert`` is there
before 14.1 (F5's fixture of 13.0 lacks it, so such a device is refused).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field, SecretStr, model_validator

from blocks._base import TargetBlock, open_secret
from blocks._target import must_be_https
from blocks.targets.bigip.own_key import KeyOnBigIpTarget
from blocks.targets.bigip.session import Session
from blocks.targets.bigip.target import BigIpTarget
from certrail.connectors import InstallTarget
from certrail.remote import http

__all__ = ["BigIp", "BigIpTarget", "KeyOnBigIpTarget", "Session"]


class BigIp(TargetBlock):
    """Replace the certificate of client-SSL profiles on a BIG-IP.

    The site is the profile: `/Common/www_ssl`, or `www_ssl` in the connector's
    partition; an entry of its certificate key chain other than the only one
    is named by `cert_key_chain` of the endpoint's server. The account needs the role
    Administrator: uploads are open to no other. With `key_on_device` the device makes
    the key, and it never leaves it.
    """

    _block_type_slug = "target-bigip"
    _block_type_name = "Certrail target: F5 BIG-IP"

    url: str = Field(description="Management address, such as https://bigip1.example.com.")
    username: str = Field(min_length=1, description="Account with the role Administrator.")
    password: SecretStr = Field(description="Its password, or a reference to it.")
    login_provider: str = Field(
        default="tmos", description="Where the account is known: tmos, or a remote directory."
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the address; empty: system."
    )
    partition: str = Field(
        default="Common",
        pattern=r"^[A-Za-z0-9_.-]+$",
        description="Where profiles named without one are, and new objects are made.",
    )
    sync_group: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9_./-]*$",
        description="Device group to synchronise to after a change; empty: none, or automatic.",
    )
    sync_pending: bool = Field(
        default=False,
        description="Synchronise although somebody else's changes wait for it, too, and send "
        "them along; otherwise installing waits for them.",
    )
    timeout: int = Field(default=30, ge=1, le=300, description="Seconds a call may take.")
    key_on_device: bool = Field(
        default=False,
        description="Let the device make the key instead of sending one; in the partition Common.",
    )

    @model_validator(mode="after")
    def _keys_are_in_common(self) -> BigIp:
        if self.key_on_device and self.partition != "Common":
            raise ValueError("key_on_device needs the partition Common")
        return self

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        must_be_https(self.url, "the device")
        with http.client(
            self.url, ca_bundle=self.ca_bundle, timeout=timedelta(seconds=self.timeout)
        ) as client:
            session = Session(
                client,
                self.label,
                self.username,
                open_secret(self.password),
                provider=self.login_provider,
            )
            try:
                kind = KeyOnBigIpTarget if self.key_on_device else BigIpTarget
                yield kind(
                    session,
                    partition=self.partition,
                    sync_group=self.sync_group,
                    sync_pending=self.sync_pending,
                )
            finally:
                session.close()
