"""NetScaler ADC (Citrix ADC) through NITRO.

Calls (NITRO reference of ``systemfile``, ``sslcertkey``, ``nsconfig`` and ``hanode``,
as kept in doubret/citrix-netscaler-nitro-12-yaml-specs and the ADC documentation
"Install, link, and update certificates"; looked up November 2026):

* account and password go into ``X-NITRO-USER`` and ``X-NITRO-PASS`` of each call;
* ``POST systemfile`` writes a file, ``GET systemfile?args=filename:…,filelocation:…``
  reads it: a certificate's fingerprint is in no other answer;
* ``POST sslcertkey?action=update`` gives an object other files and keeps its bindings;
  ``nodomaincheck`` allows other names; ``link`` and ``unlink`` set its issuer, which
  has to be unlinked before another can be linked;
* the same certificate cannot be added under two names: error 273, "Resource already
  exists [certkeyName Contents, NAME]";
* ``POST nsconfig?action=save`` saves; ``configchanged`` of ``GET nsconfig`` tells whether
  the configuration was changed since it was last saved; ``GET hanode`` tells the state of
  the pair, whose secondary gets configuration and files from the primary.

No device was at hand: this was tried against a fake made from these sources only.
Not verified: whether ``update`` keeps the link (so it is read again and set when it
does not), how long object names may be, and codes of errors other than 258, 273, 354.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field, SecretStr, model_validator

from blocks._base import TargetBlock, open_secret
from blocks._target import must_be_https
from blocks.targets.netscaler.nitro import nitro_client
from blocks.targets.netscaler.own_key import KeyOnNetScalerTarget
from blocks.targets.netscaler.target import NetScalerTarget
from certrail.connectors import InstallTarget

__all__ = ["KeyOnNetScalerTarget", "NetScaler", "NetScalerTarget", "nitro_client"]


class NetScaler(TargetBlock):
    """Replace the files of certificate-key pairs on a NetScaler ADC.

    The site is the certificate-key pair (`sslcertkey`). One that is not there yet
    is made and bound to the virtual server that `vserver` of the endpoint's server
    names. In a pair of appliances, address the primary. With `key_on_device` the
    appliance makes the key, an RSA one, and it never leaves it; such a certificate has
    one name.
    """

    _block_type_slug = "target-netscaler"
    _block_type_name = "Certrail target: NetScaler ADC"

    url: str = Field(description="Management address, such as https://adc1.example.com.")
    username: str = Field(min_length=1, description="Account that may change certificates.")
    password: SecretStr = Field(description="Its password, or a reference to it.")
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the address; empty: system."
    )
    timeout: int = Field(default=30, ge=1, le=300, description="Seconds a call may take.")
    key_on_device: bool = Field(
        default=False, description="Let the appliance make the key instead of sending one."
    )
    country: str = Field(
        default="",
        pattern="^([A-Za-z]{2})?$",
        description="Two letters; the appliance wants country, state and organization in a request "
        "for a key of its own.",
    )
    state: str = Field(default="", description="State or province for such a request.")
    organization: str = Field(
        default="",
        pattern=r"^[^<>~!@#0^*/\[\]?]*$",
        description="Organization for such a request, without the signs <>~!@#^*/[]? and zero.",
    )

    @model_validator(mode="after")
    def _request_is_whole(self) -> NetScaler:
        if self.key_on_device and not (self.country and self.state and self.organization):
            raise ValueError("key_on_device needs country, state and organization")
        return self

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        must_be_https(self.url, "the appliance")
        with nitro_client(
            self.url,
            self.username,
            open_secret(self.password),
            ca_bundle=self.ca_bundle,
            timeout=timedelta(seconds=self.timeout),
        ) as client:
            if not self.key_on_device:
                yield NetScalerTarget(client, self.label)
                return
            subject = {
                "countryname": self.country.upper(),
                "statename": self.state,
                "organizationname": self.organization,
            }
            yield KeyOnNetScalerTarget(client, self.label, subject)
