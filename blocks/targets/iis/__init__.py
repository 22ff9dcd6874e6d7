"""Microsoft IIS, through PowerShell remoting.

Sources (read November 2026): module WebAdministration, "New-WebBinding" (whose example
calls ``AddSslCertificate`` of what ``Get-WebBinding`` returns); module PKI,
"Import-PfxCertificate"; "about_Certificate_Provider"; "ForEach-Object", parameter
``MemberName``; "Where-Object", parameter ``EQ``; "Installation and configuration for
Windows Remote Management"; [MS-WSMV] and [MS-PSRP].

No machine with Windows was at hand: this was tried against an imitation of these
sources only. Not verified: that ``AddSslCertificate`` of a binding that has a
certificate replaces it in one step (it is read back, and put right if not); whether it
keeps what else HTTP.sys has for the binding, such as the request for client
certificates; every way to log in but basic; and that ``certreq`` gives a certificate the
friendly name of its request, without which nobody removes it once it is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, model_validator

from blocks._base import TargetBlock, open_secret
from blocks._target import must_be_https
from blocks.targets.iis.own_key import KeyOnIisTarget
from blocks.targets.iis.remoting import Remoting, pem_file, remoting
from blocks.targets.iis.target import IisTarget
from certrail.connectors import InstallTarget
from certrail.x509.export import Format

__all__ = ["Iis", "IisTarget", "KeyOnIisTarget", "Remoting", "remoting"]


class Iis(TargetBlock):
    """Replace the certificates of https bindings of IIS, through PowerShell remoting.

    The site is the binding, `Default Web Site/*:443:www.example.com` (site, address,
    port, host header), or the site's name where it has one https binding. Bindings are
    not made. Bindings without SNI at the same address and port have one certificate
    between them: one that does not name the others' host headers is refused. With
    `key_on_device` the machine makes the key, and it never leaves it; such a certificate
    is for DNS names, in the store My.
    """

    _block_type_slug = "target-iis"
    _block_type_name = "Certrail target: IIS"

    url: str = Field(
        description="Address of WinRM's HTTPS listener, such as https://web1.example.com:5986."
    )
    auth: Literal["negotiate", "kerberos", "ntlm", "basic", "certificate"] = Field(
        default="negotiate", description="How to log in; basic is for local accounts only."
    )
    username: str = Field(
        default="",
        description="Account, `DOMAIN\\name`, `name@domain` or a local one; empty: of the "
        "Kerberos ticket, or of the client certificate.",
    )
    password: SecretStr | None = Field(
        default=None, description="Its password, or a reference to it."
    )
    client_certificate: str = Field(
        default="", description="PEM file of the worker with the client certificate (certificate)."
    )
    client_key: SecretStr | None = Field(
        default=None,
        description="Its private key in PEM, or a reference to it: file:/path (certificate).",
    )
    ca_bundle: str = Field(
        default="", description="CA certificates (path or PEM) for the address; empty: system."
    )
    store: Literal["WebHosting", "My"] = Field(
        default="WebHosting",
        description="The machine's certificate store for new ones; My (Personal) where other "
        "services look for them.",
    )
    exportable: bool = Field(
        default=False, description="Whether the private key can be taken out of the store again."
    )
    legacy_encryption: bool = Field(
        default=False,
        description="Send it encrypted with 3DES: Windows Server 2016 and older read no AES.",
    )
    key_on_device: bool = Field(
        default=False, description="Let the machine make the key instead of sending one."
    )
    configuration: str = Field(
        default="Microsoft.PowerShell",
        min_length=1,
        description="Session configuration; it has to be one of Windows PowerShell 5.1.",
    )
    timeout: int = Field(default=60, ge=5, le=600, description="Seconds a command may take.")

    @model_validator(mode="after")
    def _login_is_whole(self) -> Iis:
        if self.auth in ("basic", "ntlm") and not (self.username and self.password):
            raise ValueError(f"{self.auth} needs username and password")
        if self.auth == "certificate" and not (self.client_certificate and self.client_key):
            raise ValueError("certificate needs client_certificate and client_key")
        return self

    @model_validator(mode="after")
    def _own_key_is_possible(self) -> Iis:
        if self.key_on_device and self.store != "My":
            raise ValueError("key_on_device needs store: My, where Windows puts such certificates")
        if self.key_on_device and self.exportable:
            raise ValueError("key_on_device makes keys that are never exportable")
        return self

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        must_be_https(self.url, "WinRM")
        with ExitStack() as stack:
            key_file = ""
            if key := open_secret(self.client_key):
                key_file = stack.enter_context(pem_file(key))
            remote = stack.enter_context(
                remoting(
                    self.url,
                    self.username,
                    open_secret(self.password),
                    auth=self.auth,
                    ca_bundle=self.ca_bundle,
                    client_certificate=(self.client_certificate, key_file),
                    configuration=self.configuration,
                    label=self.label,
                    timeout=timedelta(seconds=self.timeout),
                )
            )
            if self.key_on_device:
                target: IisTarget = KeyOnIisTarget(remote)
            else:
                target = IisTarget(
                    remote,
                    store=self.store,
                    form=Format.PKCS12_LEGACY if self.legacy_encryption else Format.PKCS12,
                    exportable=self.exportable,
                )
            # Another connector may lead to the same machine.
            target.lock_name = f"iis {(urlsplit(self.url).hostname or '').lower()}"
            yield target
