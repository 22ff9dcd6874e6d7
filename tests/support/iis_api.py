"""A Windows Server with IIS as its PowerShell commands show it: a site with an SNI binding.

What the commands do and refuse is from the pages that ``blocks/targets/iis`` names; their
parameters are in :mod:`tests.support.windows_commands`.
"""

# ruff: noqa: N803 - the parameters of commands as PowerShell has them

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from psrpcore.types import ErrorCategory, PSSecureString

from tests.support import certreq
from tests.support.device import SITE, context_of
from tests.support.windows_commands import COMMANDS, bound, not_found
from tests.support.winrm_service import Failed, Shell, Step, WinRm

WEB_SITE = "Default Web Site"
INFORMATION = f"*:443:{SITE}"
BINDING = f"{WEB_SITE}/{INFORMATION}"
_TAKE_INPUT = ("Select-Object", "Where-Object", "ForEach-Object", "Out-String")
TEMP = "C:\\Users\\deploy\\AppData\\Local\\Temp"

_UNAUTHORIZED = "System.UnauthorizedAccessException"
_NO_LOGON_SESSION = (
    'Exception calling "AddSslCertificate" with "2" argument(s): "A specified logon session '
    'does not exist. It may already have been terminated. (Exception from HRESULT: 0x80070520)"'
)


@dataclass
class Stored:
    """A certificate in a store."""

    der: bytes
    key: bytes | None = None
    friendly_name: str = ""
    exportable: bool = False

    @property
    def certificate(self) -> x509.Certificate:
        """Parsed."""
        return x509.load_der_x509_certificate(self.der)

    @property
    def thumbprint(self) -> str:
        """SHA-1."""
        return hashlib.sha1(self.der).hexdigest().upper()


@dataclass(frozen=True)
class Line:
    """A line of a file: to PowerShell a text with properties, such as its number."""

    text: str


@dataclass
class WebBinding:
    """An https binding; its certificate is where HTTP.sys has it."""

    site: str
    information: str
    flags: int = 1

    @property
    def place(self) -> tuple[str, str]:
        """What HTTP.sys keeps the certificate by."""
        address, port, host = self.information.rsplit(":", 2)
        return (f"!{port}", host) if self.flags & 1 else (f"{address}!{port}", "")


class IisServer(WinRm):
    """The machine."""

    def __init__(self) -> None:
        super().__init__()
        assert self.old.key is not None
        leaf, issuer = (one.public_bytes(Encoding.DER) for one in self.old.chain.certificates)
        old = Stored(leaf, self.old.key.reveal(), "www 2025")
        ca = Stored(issuer)
        self.stores = {"My": {old.thumbprint: old}, "WebHosting": {}, "CA": {ca.thumbprint: ca}}
        self.stores |= {"Root": {}, "REQUEST": {}}
        self.trust(self.ca.root.public_bytes(Encoding.PEM))
        self.bindings = [WebBinding(WEB_SITE, INFORMATION)]
        self.http_sys = {self.bindings[0].place: (old.thumbprint, "My")}
        self.files: dict[str, bytes] = {}
        self.features = {"WebAdministration"}
        self.ignores_changes = False
        """A switch is said to be done, and nothing happens."""
        self.made = 0
        """Keys that it made itself."""

    def trust(self, pem: bytes) -> None:
        """Put a root into the store of those that Windows trusts."""
        root = Stored(x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER))
        self.stores["Root"][root.thumbprint] = root

    # What clients see

    def pair(self, name: str | None) -> tuple[str, bytes]:
        """Return chain and key for a server name, as HTTP.sys chooses: name first, then address.

        Raises:
            ConnectionAbortedError: it has none for that name.
        """
        found = self.http_sys.get(("!443", name or "")) or self.http_sys.get(("*!443", ""))
        stored = self.stores[found[1]].get(found[0]) if found else None
        if stored is None or stored.key is None:
            raise ConnectionAbortedError
        chain = [stored.certificate]
        issuers = {one.certificate.subject: one.certificate for one in self.stores["CA"].values()}
        while (issuer := issuers.get(chain[-1].issuer)) and issuer not in chain:
            chain.append(issuer)
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in chain), stored.key

    def live(self) -> tuple[str, bytes]:
        return self.pair(SITE)

    def live_context(self) -> ssl.SSLContext:
        with self.lock:
            context = super().live_context()

            def choose(connection: ssl.SSLObject, name: str | None, _: object) -> int | None:
                if name == SITE:
                    return None
                try:
                    connection.context = context_of(*self.pair(name))
                except ConnectionAbortedError:
                    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
                return None

            context.sni_callback = choose
            return context

    def snapshot(self) -> dict[str, bytes]:
        """Return everything stored."""
        stored = {
            f"{store}\\{name}": one.der + (one.key or b"") + one.friendly_name.encode()
            for store, entries in self.stores.items()
            for name, one in entries.items()
        }
        return {**self.files, **stored, "http.sys": repr(sorted(self.http_sys.items())).encode()}

    # Commands

    def program(self, name: str, arguments: Sequence[str]) -> str:
        assert (name, list(arguments)) == ("whoami.exe", ["/groups", "/fo", "csv", "/nh"])
        rows = [("Everyone", "Well-known group", "S-1-1-0")]
        if self.right == "administrators":
            rows += [
                ("VORDEFINIERT\\Administratoren", "Alias", "S-1-5-32-544"),
                ("Verbindliche Beschriftung\\Hohe Verbindlichkeitsstufe", "", "S-1-16-12288"),
            ]
        else:
            rows.append(("Mittlere Verbindlichkeitsstufe", "", "S-1-16-8192"))
        return "".join('"{}","{}","{}",""\r\n'.format(*row) for row in rows)

    def run(self, shell: Shell, steps: Sequence[Step]) -> list[Any]:
        if steps[0].name == "whoami.exe":
            arguments = [str(value) for name, value in steps[0].parameters if name is None]
            return self.program("whoami.exe", arguments).splitlines()
        if steps[0].name == "certreq.exe":
            assert len(steps) == 1
            arguments = [str(value) for name, value in steps[0].parameters if name is None]
            return self._certreq(shell, arguments)
        objects: list[Any] = []
        for number, step in enumerate(steps):
            given = bound(step)
            handler: Callable[..., list[Any]] = getattr(
                self, "_" + step.name.lower().replace("-", "_")
            )
            takes_input = step.name in _TAKE_INPUT
            assert takes_input == bool(number), f"{step.name} at place {number}"
            objects = handler(objects, **given) if takes_input else handler(shell, **given)
        # What is no plain value comes as its properties; those here would be of no use.
        assert all(isinstance(one, str | int | dict) for one in objects), "select properties"
        return objects

    def _certreq(self, shell: Shell, arguments: list[str]) -> list[Any]:
        verb, *rest = arguments
        shell.exit_code = 0
        try:
            {"-new": self._certreq_new, "-accept": self._certreq_accept}[verb](rest)
        except certreq.Refused as refused:
            shell.exit_code = refused.code
            return [str(refused)]
        return ["CertReq: done"]

    def _certreq_new(self, arguments: list[str]) -> None:
        given, (policy, request) = certreq.options(arguments, "-q", "-f")
        assert "-q" in given, "it would ask somebody who is not there"
        if policy not in self.files:
            raise certreq.Refused(certreq.NO_FILE, "The system cannot find the file specified.")
        if request in self.files and "-f" not in given:
            raise certreq.Refused(certreq.FILE_EXISTS, "The file exists.")
        made = certreq.new(self.files[policy].decode("ascii"))
        self.made += 1
        self.files[request] = made.request
        der = made.certificate.public_bytes(Encoding.DER)
        stored = Stored(der, made.key, made.friendly_name, made.exportable)
        assert self.right == "administrators" or not made.for_machine
        if made.for_machine:
            self.stores["REQUEST"][stored.thumbprint] = stored

    def _certreq_accept(self, arguments: list[str]) -> None:
        given, (path,) = certreq.options(arguments, "-q")
        assert "-q" in given, "it would ask somebody who is not there"
        if path not in self.files:
            raise certreq.Refused(certreq.NO_FILE, "The system cannot find the file specified.")
        leaf = x509.load_pem_x509_certificate(self.files[path])
        wanted = certreq.public_key(leaf)
        waiting = [
            one
            for one in self.stores["REQUEST"].values()
            if one.key and certreq.public_key(one.certificate) == wanted
        ]
        if not waiting:
            raise certreq.Refused(certreq.NOT_FOUND, "Cannot find object or property.")
        between, roots = (
            [one.certificate for one in self.stores[store].values()] for store in ("CA", "Root")
        )
        certreq.must_be_trusted(leaf, between, roots)
        (kept,) = waiting
        stored = Stored(
            leaf.public_bytes(Encoding.DER), kept.key, kept.friendly_name, kept.exportable
        )
        self.stores["My"][stored.thumbprint] = stored
        del self.stores["REQUEST"][kept.thumbprint]

    def _import_module(self, shell: Shell, Name: str) -> list[Any]:
        if Name not in self.features:
            raise Failed(
                f"The specified module '{Name}' was not loaded because no valid module file was "
                "found in any module directory.",
                f"Modules_ModuleNotFound,{COMMANDS}.ImportModuleCommand",
                ErrorCategory.ResourceUnavailable,
                "System.IO.FileNotFoundException",
            )
        if self.right != "administrators":
            raise Failed(
                "Process should have elevated status to access IIS configuration data.",
                f"System.InvalidOperationException,{COMMANDS}.ImportModuleCommand",
                ErrorCategory.NotSpecified,
                "System.InvalidOperationException",
            )
        shell.modules.add(Name)
        return []

    def _get_webbinding(self, shell: Shell, Protocol: str) -> list[Any]:
        self._must_have_module(shell, "Get-WebBinding")
        return list(self.bindings) if Protocol == "https" else []

    def _get_item(self, shell: Shell, LiteralPath: str) -> list[Any]:
        if LiteralPath == "Env:\\TEMP":
            return [{"Name": "TEMP", "Value": TEMP}]
        return [self._entry(LiteralPath, "GetItemCommand")]

    def _get_childitem(self, shell: Shell, Path: str = "", LiteralPath: str = "") -> list[Any]:
        if LiteralPath:
            return list(self.stores[_in_store(LiteralPath)].values())
        assert Path == "IIS:\\SslBindings"
        self._must_have_module(shell, "Get-ChildItem")
        return [
            {"IPAddress": place[0].partition("!")[0], "Thumbprint": thumbprint, "Store": store}
            for place, (thumbprint, store) in self.http_sys.items()
        ]

    def _get_itemproperty(self, shell: Shell, LiteralPath: str) -> list[Any]:
        assert LiteralPath == "HKLM:\\SOFTWARE\\Microsoft\\InetStp"
        return [{"VersionString": "Version 10.0", "MajorVersion": 10}]

    def _get_content(self, shell: Shell, LiteralPath: str) -> list[Any]:
        if LiteralPath not in self.files:
            raise not_found(LiteralPath, "GetContentCommand")
        return [Line(one) for one in self.files[LiteralPath].decode("ascii").splitlines()]

    def _get_variable(self, shell: Shell, Name: str, ValueOnly: bool) -> list[Any]:
        assert (Name, ValueOnly) == ("LASTEXITCODE", True)
        return [shell.exit_code]

    def _out_string(self, objects: list[Any], Width: int) -> list[Any]:
        assert all(isinstance(one, Line) and len(one.text) <= Width for one in objects)
        return ["".join(f"{one.text}\r\n" for one in objects)]

    def _test_path(self, shell: Shell, LiteralPath: str) -> list[Any]:
        store, _, name = _in_store(LiteralPath).partition("\\")
        return [name in self.stores[store]]

    def _remove_item(
        self,
        shell: Shell,
        LiteralPath: str,
        Force: bool = False,
        DeleteKey: bool = False,
    ) -> list[Any]:
        if LiteralPath.startswith("Cert:"):
            self._must_be_administrator("Remove-Item")
            entry = self._entry(LiteralPath, "RemoveItemCommand")
            assert DeleteKey or entry.key is None, "a key is left behind"
            del self.stores[_in_store(LiteralPath).partition("\\")[0]][entry.thumbprint]
        elif self.files.pop(LiteralPath, None) is None:
            raise not_found(LiteralPath, "RemoveItemCommand")
        return []

    def _set_content(
        self,
        shell: Shell,
        LiteralPath: str,
        Value: bytes,
        Encoding: str,
    ) -> list[Any]:
        assert Encoding == "Byte", "bytes would be written as numbers"
        assert LiteralPath.startswith(f"{TEMP}\\"), "where others may read"
        self.files[LiteralPath] = bytes(Value)
        return []

    def _import_pfxcertificate(
        self,
        shell: Shell,
        FilePath: str,
        CertStoreLocation: str,
        Password: PSSecureString,
        Exportable: bool = False,
    ) -> list[Any]:
        self._must_be_administrator("Import-PfxCertificate")
        store = self.stores[_in_store(CertStoreLocation)]
        if FilePath not in self.files:
            raise not_found(FilePath, "ImportPfxCertificate")
        try:
            found = pkcs12.load_pkcs12(self.files[FilePath], str(Password.decrypt()).encode())
        except ValueError as exc:
            raise Failed(
                "The PFX file you are trying to import requires either a different password or "
                "membership in an Active Directory principal to which it is protected.",
                "System.ComponentModel.Win32Exception,Microsoft.CertificateServices.Commands."
                "ImportPfxCertificate",
                kind="System.ComponentModel.Win32Exception",
            ) from exc
        assert found.cert is not None
        assert found.key is not None
        assert not found.additional_certs, "issuers would be put into the store of the leaf"
        key = found.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        name = (found.cert.friendly_name or b"").decode()
        one = Stored(found.cert.certificate.public_bytes(Encoding.DER), key, name, Exportable)
        store[one.thumbprint] = one
        return [one]

    def _import_certificate(
        self,
        shell: Shell,
        FilePath: str,
        CertStoreLocation: str,
    ) -> list[Any]:
        self._must_be_administrator("Import-Certificate")
        if FilePath not in self.files:
            raise not_found(FilePath, "ImportCertificate")
        one = Stored(self.files[FilePath])
        assert one.certificate
        self.stores[_in_store(CertStoreLocation)].setdefault(one.thumbprint, one)
        return [one]

    def _select_object(self, objects: list[Any], Property: list[str]) -> list[Any]:
        # A property that is not there comes as null.
        return [{name: self._property(one, name) for name in Property} for one in objects]

    def _where_object(
        self,
        objects: list[Any],
        Property: str,
        Value: str,
        EQ: bool,
    ) -> list[Any]:
        assert EQ
        return [
            one
            for one in objects
            if str(self._property(one, Property) or "").lower() == Value.lower()
        ]

    def _foreach_object(
        self,
        objects: list[Any],
        MemberName: str,
        ArgumentList: list[str],
    ) -> list[Any]:
        for one in objects:
            assert isinstance(one, WebBinding)
            if MemberName == "RemoveSslCertificate":
                assert not ArgumentList
                del self.http_sys[one.place]
                continue
            assert MemberName == "AddSslCertificate", MemberName
            thumbprint, store = ArgumentList
            found = self.stores.get(store, {}).get(thumbprint)
            if found is None or found.key is None:
                raise Failed(
                    _NO_LOGON_SESSION,
                    f"ForEachObjectInvokeMethodError,{COMMANDS}.ForEachObjectCommand",
                    ErrorCategory.InvalidOperation,
                    "System.Management.Automation.MethodInvocationException",
                )
            if not self.ignores_changes:
                self.http_sys[one.place] = (thumbprint, store)
        return []

    def _property(self, one: object, name: str) -> object:
        if isinstance(one, dict):
            return one.get(name)
        if isinstance(one, Stored):
            return {
                "Thumbprint": one.thumbprint,
                "FriendlyName": one.friendly_name,
                "HasPrivateKey": one.key is not None,
                "RawData": one.der,
            }[name]
        assert isinstance(one, WebBinding)
        thumbprint, store = self.http_sys.get(one.place, ("", ""))
        number = self.bindings.index(one) + 1
        return {
            "protocol": "https",
            "bindingInformation": one.information,
            "sslFlags": one.flags,
            "certificateHash": thumbprint,
            "certificateStoreName": store,
            "ItemXPath": f"/system.applicationHost/sites/site[@name='{one.site}' and "
            f"@id='{number}']",
        }[name]

    def _entry(self, path: str, command: str) -> Stored:
        store, _, name = _in_store(path).partition("\\")
        found = self.stores.get(store, {}).get(name)
        if found is None:
            raise not_found(path, command)
        return found

    def _must_have_module(self, shell: Shell, command: str) -> None:
        assert "WebAdministration" in shell.modules, f"{command} before Import-Module"

    def _must_be_administrator(self, command: str) -> None:
        if self.right != "administrators":
            raise Failed(
                "Access is denied. 0x80070005 (WIN32: 5 ERROR_ACCESS_DENIED)",
                f"{_UNAUTHORIZED},{command}",
                kind=_UNAUTHORIZED,
            )


def _in_store(path: str) -> str:
    drive = "Cert:\\LocalMachine\\"
    assert path.startswith(drive), path
    return path.removeprefix(drive)
