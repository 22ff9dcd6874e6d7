"""A10 Thunder (ACOS) through aXAPI v3.

Calls (A10 "aXAPI v3" reference, pages "slb template client-ssl" of ACOS 5.2.1 and
6.0.1; A10's own ``acos-client`` 2.10, modules ``session``, ``file.ssl_cert``,
``file.ssl_key``, ``responses``; the certificate orchestrator of Keyfactor for A10
vThunder; looked up November 2026):

* ``POST auth`` gives a signature for ``Authorization: A10 …``; ``POST logoff`` ends it;
* ``POST file/ssl-cert`` and ``file/ssl-key`` take a form with a part ``json`` and a part
  ``file``; ``GET file/ssl-cert/NAME`` answers with the PEM text;
* ``PUT slb/template/client-ssl/NAME/certificate`` replaces the template's list of
  certificates (``cert``, ``key``, ``chain-cert``) in one call, since ACOS 5.2;
* ``POST pki/delete`` removes files; ``POST write/memory`` saves.

No device was at hand: this was tried against a fake made from these sources only.
Not verified: that ``PUT`` of the list is refused as a whole for a key that does not fit
(whatever it does, the list is read back), whether file names may be longer than 63,
L3V partitions other than the shared one, and the roles of VRRP-A (address the active
device).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field, SecretStr

from blocks._base import TargetBlock, open_secret
from blocks._target import must_be_https
from blocks.targets.a10.session import AxapiSession
from blocks.targets.a10.target import A10Target
from certrail.connectors import InstallTarget
from certrail.remote import http

__all__ = ["A10", "A10Target", "AxapiSession"]


class A10(TargetBlock):
    """Replace the certificate of client-SSL templates on an A10 Thunder.

    The site is the template in the shared partition. Of several certificates in it
    (one for each kind of key), `cert` of the endpoint's server names the one to
    replace at first. In a VRRP-A set, address the active device.
    """

    _block_type_slug = "target-a10"
    _block_type_name = "Certrail target: A10 Thunder"

    url: str = Field(description="Management address, such as https://adc1.example.com.")
    username: str = Field(min_length=1, description="Account that may change certificates.")
    password: SecretStr = Field(description="Its password, or a reference to it.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the address; empty: system."
    )
    timeout: int = Field(default=30, ge=1, le=300, description="Seconds a call may take.")

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        must_be_https(self.url, "the device")
        with http.client(
            self.url, ca_bundle=self.ca_bundle, timeout=timedelta(seconds=self.timeout)
        ) as client:
            session = AxapiSession(client, self.label, self.username, open_secret(self.password))
            try:
                yield A10Target(session)
            finally:
                session.close()
