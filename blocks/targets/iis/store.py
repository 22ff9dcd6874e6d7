"""The certificate stores of a Windows machine, through the ``Cert:`` drive.

Cmdlets (PowerShell documentation, read November 2026): "Import-PfxCertificate" and
"Import-Certificate" (module PKI) take files only; without ``-Exportable`` a key cannot
be taken out again; "about_Certificate_Provider": ``Remove-Item -DeleteKey`` removes
the key as well. The friendly name of an entry is the one in the PKCS #12 file.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from blocks.targets.iis.remoting import Remoting, Secret, cmdlet
from certrail.errors import ConnectorError, NotFound, UnexpectedReply
from certrail.log import effect, logger
from certrail.model import UNREADABLE, Bundle, Chain
from certrail.x509.export import Format, Part, export

ISSUERS = "CA"

_SHOWN = ["Thumbprint", "FriendlyName", "HasPrivateKey", "RawData"]
_PASSWORD_BYTES = 32
# Of what is read, in characters; Out-String breaks longer ones.
_LONGEST_LINE = 4096


@dataclass(frozen=True)
class Entry:
    """A certificate in a store."""

    certificate: x509.Certificate
    friendly_name: str
    has_key: bool

    @property
    def thumbprint(self) -> str:
        """What Windows names it by."""
        return thumbprint(self.certificate)


def thumbprint(certificate: x509.Certificate) -> str:
    """Return what Windows names a certificate by: its SHA-1 in upper-case hex."""
    return certificate.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303 - Windows' name


class Stores:
    """The machine's certificate stores."""

    def __init__(self, remote: Remoting) -> None:
        self._remote = remote
        self._folder = ""

    def read(self, store: str, name: str) -> Entry | None:
        """Return the certificate with the thumbprint *name*, None if it is not there."""
        try:
            found = self._remote.run(
                cmdlet("Get-Item", LiteralPath=_path(store, name)),
                cmdlet("Select-Object", Property=_SHOWN),
            )
        except NotFound:
            return None
        try:
            (row,) = found
            return _entry(row)
        except UNREADABLE as exc:
            raise UnexpectedReply(
                f"{self._remote.label}: the certificate {name} cannot be read",
                connector=self._remote.label,
            ) from exc

    def entries(self, store: str) -> list[Entry]:
        """Return everything in *store* that can be read; none where there is no such store."""
        try:
            rows = self._remote.run(
                cmdlet("Get-ChildItem", LiteralPath=_path(store)),
                cmdlet("Select-Object", Property=_SHOWN),
            )
        except NotFound:
            return []
        found = []
        for row in rows:
            # What cannot be read was not made by us.
            with suppress(*UNREADABLE):
                found.append(_entry(row))
        return found

    def add(self, store: str, bundle: Bundle, name: str, form: Format, *, exportable: bool) -> None:
        """Put the leaf with its key into *store* as *name*; there already is quiet.

        The file it comes in has a password of its own that nobody else ever sees.
        """
        leaf = bundle.chain.leaf
        present = self.read(store, thumbprint(leaf))
        if present is not None and present.has_key:
            return
        password = secrets.token_urlsafe(_PASSWORD_BYTES)
        alone = Bundle(Chain.of([leaf]), bundle.key)
        content = export(alone, form, password=password, alias=name)[Part.STORE]
        path = self.place(f"{name}.pfx")
        more = {"Exportable": True} if exportable else {}
        try:
            self.write_file(path, content)
            self._remote.run(
                cmdlet(
                    "Import-PfxCertificate",
                    FilePath=path,
                    CertStoreLocation=_path(store),
                    Password=Secret(password),
                    **more,
                ),
                cmdlet("Select-Object", Property=["Thumbprint"]),
            )
        except ConnectorError:
            self._sweep(path)
            raise
        self.remove_file(path)

    def add_issuers(self, chain: Chain) -> None:
        """Put issuers that are missing where Windows builds the chain it sends from."""
        for issuer in chain.certificates[1:]:
            name = thumbprint(issuer)
            if self._remote.run(cmdlet("Test-Path", LiteralPath=_path(ISSUERS, name))) == [True]:
                continue
            path = self.place(f"certrail_{name}.cer")
            try:
                self.write_file(path, issuer.public_bytes(Encoding.DER))
                self._remote.run(
                    cmdlet("Import-Certificate", FilePath=path, CertStoreLocation=_path(ISSUERS)),
                    cmdlet("Select-Object", Property=["Thumbprint"]),
                )
            except ConnectorError:
                self._sweep(path)
                raise
            self.remove_file(path)
            effect("target.issuer", connector=self._remote.label, thumbprint=name)

    def remove(self, store: str, name: str) -> None:
        """Remove a certificate with its key; absent is quiet."""
        try:
            self._remote.run(cmdlet("Remove-Item", LiteralPath=_path(store, name), DeleteKey=True))
        except NotFound:
            return
        effect("target.discard", connector=self._remote.label, thumbprint=name)

    def remove_file(self, path: str) -> None:
        """Remove a file; absent is quiet."""
        try:
            self._remote.run(cmdlet("Remove-Item", LiteralPath=path, Force=True))
        except NotFound:
            return

    def sweep(self, name: str) -> None:
        """Remove the file of an import that was broken off."""
        self.remove_file(self.place(f"{name}.pfx"))

    def _sweep(self, path: str) -> None:
        # Why the import failed is what people have to read; the next stage or discard looks again.
        try:
            self.remove_file(path)
        except ConnectorError as exc:
            logger.warning("iis.sweep failed: %s", exc)

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file, over one that is there."""
        self._remote.run(cmdlet("Set-Content", LiteralPath=path, Value=content, Encoding="Byte"))

    def read_file(self, path: str) -> str | None:
        """Return a text file, None if there is none."""
        try:
            # Each line that Get-Content returns is an object with properties of its own.
            found = self._remote.run(
                cmdlet("Get-Content", LiteralPath=path), cmdlet("Out-String", Width=_LONGEST_LINE)
            )
        except NotFound:
            return None
        return "".join(map(str, found))

    def place(self, name: str) -> str:
        """Return where the account keeps a temporary file *name*."""
        if not self._folder:
            # That of the account, which others may not read.
            rows = self._remote.run(
                cmdlet("Get-Item", LiteralPath="Env:\\TEMP"),
                cmdlet("Select-Object", Property=["Value"]),
            )
            folder = rows[0].get("Value") if rows and isinstance(rows[0], dict) else None
            if not isinstance(folder, str) or not folder:
                raise UnexpectedReply(
                    f"{self._remote.label}: the account has no folder for temporary files",
                    connector=self._remote.label,
                )
            self._folder = folder.rstrip("\\")
        return f"{self._folder}\\{name}"


def _entry(row: Any) -> Entry:
    leaf = x509.load_der_x509_certificate(row["RawData"])
    return Entry(leaf, str(row["FriendlyName"] or ""), row["HasPrivateKey"] is True)


def _path(store: str, name: str = "") -> str:
    return f"Cert:\\LocalMachine\\{store}" + (f"\\{name}" if name else "")
