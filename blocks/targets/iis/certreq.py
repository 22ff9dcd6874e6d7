"""Keys that Windows makes: ``certreq`` with a request in the machine's store.

Sources (read November 2026): "certreq" (Windows commands reference): the keys of
``[NewRequest]``, ``[Extensions]`` with ``{text}``; ``-accept`` joins a certificate with the
key of the pending request that has its public key, and removes that request; without
``-machine`` it takes no certificate that nothing waits for. "IX509Enrollment::InstallResponse":
a certificate goes into the personal store, and only one whose root is trusted.
"about_Automatic_Variables": ``$LASTEXITCODE``.

The page writes IP addresses in two ways that differ, so there are none here.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from blocks._target import texts
from blocks.targets.iis.remoting import Command, Remoting, cmdlet
from blocks.targets.iis.store import Entry, Stores
from certrail.errors import Rejected, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import UNREADABLE, Csr, KeyAlgorithm

PENDING, PERSONAL = "REQUEST", "My"
LONGEST_COMMON_NAME = 64

_PROVIDER = "Microsoft Software Key Storage Provider"
# Algorithm, length, and the use: signatures, and with RSA the exchange of keys.
_KINDS = {
    KeyAlgorithm.RSA_2048: ("RSA", 2048, "0xa0"),
    KeyAlgorithm.RSA_3072: ("RSA", 3072, "0xa0"),
    KeyAlgorithm.RSA_4096: ("RSA", 4096, "0xa0"),
    KeyAlgorithm.ECDSA_P256: ("ECDSA_P256", 256, "0x80"),
    KeyAlgorithm.ECDSA_P384: ("ECDSA_P384", 384, "0x80"),
}
_REMEDIES = {
    "-new": "Correct on the machine what it names, or set `key_on_device: false`; then retry. "
    "Nothing was ordered.",
    "-accept": "The root of the CA has to be in the machine's store Trusted Root Certification "
    "Authorities; then retry: no new order is made.",
}
_FILES = ("inf", "req", "cer")


def inf(name: str, names: Sequence[str], algorithm: KeyAlgorithm) -> str:
    """Return what ``certreq -new`` is to make: a key that stays, and a request for *names*.

    Args:
        name: friendly name of the pending request and of the certificate.
        names: DNS names; the common name is the first that is short enough.
    """
    kind, length, usage = _KINDS[algorithm]
    common = next(one for one in names if len(one) <= LONGEST_COMMON_NAME)
    lines = [
        "[Version]",
        'Signature = "$Windows NT$"',
        "[NewRequest]",
        f'Subject = "CN={common}"',
        f'FriendlyName = "{name}"',
        "RequestType = PKCS10",
        f'ProviderName = "{_PROVIDER}"',
        f"KeyAlgorithm = {kind}",
        f"KeyLength = {length}",
        f"KeyUsage = {usage}",
        "HashAlgorithm = sha256",
        "MachineKeySet = TRUE",
        "Exportable = FALSE",
        "Silent = TRUE",
        # They would tell the CA the names of the machine and of the account.
        "SuppressDefaults = TRUE",
        "[Extensions]",
        '2.5.29.17 = "{text}"',
        *(f'_continue_ = "DNS={one}&"' for one in names),
    ]
    return "".join(f"{line}\r\n" for line in lines)


def is_for(csr: Csr, names: Sequence[str], algorithm: KeyAlgorithm) -> bool:
    """Return whether *csr* asks for exactly *names* and has such a key."""
    try:
        parsed = csr.parsed
        key = parsed.public_key()
        found = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    asked = found.get_values_for_type(x509.DNSName)
    kind, length, _ = _KINDS[algorithm]
    right = isinstance(key, rsa.RSAPublicKey if kind == "RSA" else ec.EllipticCurvePublicKey)
    same = len(found) == len(names) and set(asked) == set(names)
    return right and getattr(key, "key_size", 0) == length and same and parsed.is_signature_valid


class Certreq:
    """``certreq`` on one machine; *name* is always that of a request, and of its files."""

    def __init__(self, remote: Remoting, stores: Stores) -> None:
        self._remote = remote
        self._label = remote.label
        self._stores = stores

    def waiting(self, name: str) -> Csr | None:
        """Return the request *name* if its key still waits for a certificate."""
        csr = self._csr(name)
        return csr if csr and self.pending(csr.public_key_der()) else None

    def pending(self, public_key: bytes) -> Entry | None:
        """Return the pending request for the key with that SubjectPublicKeyInfo."""
        for one in self._stores.entries(PENDING):
            if one.has_key and _public_key(one.certificate) == public_key:
                return one
        return None

    def new(self, name: str, content: str) -> Csr:
        """Make key and request.

        Raises:
            Rejected: ``certreq`` refused the INF file *content*.
            UnexpectedReply: there is no request that can be read, or no key for it.
        """
        policy, request = self._file(name, "inf"), self._file(name, "req")
        self._stores.write_file(policy, content.encode("ascii"))
        self._certreq("-new", "-q", policy, request)
        self._stores.remove_file(policy)
        csr = self.waiting(name)
        if csr is None:
            raise UnexpectedReply(
                f"{self._label}: certreq made no request whose key is in the machine's store",
                connector=self._label,
            )
        effect("iis.key", connector=self._label, request=name)
        return csr

    def accept(self, name: str, leaf: x509.Certificate) -> None:
        """Join *leaf* with the key that waits for it.

        Raises:
            Rejected: no request waits for it, or Windows does not trust its root.
        """
        path = self._file(name, "cer")
        self._stores.write_file(path, leaf.public_bytes(Encoding.PEM))
        self._certreq("-accept", "-q", path)
        effect("iis.accept", connector=self._label, request=name)

    def give_up(self, name: str) -> None:
        """Remove the request *name* with its key, and its files; absent is quiet."""
        csr = self._csr(name)
        keys = {csr.public_key_der()} if csr else set()
        for one in self._stores.entries(PENDING):
            if one.friendly_name == name or _public_key(one.certificate) in keys:
                self._stores.remove(PENDING, one.thumbprint)
        self.sweep(name)

    def sweep(self, name: str) -> None:
        """Remove the files of a request; absent ones are quiet."""
        for kind in _FILES:
            self._stores.remove_file(self._file(name, kind))

    def _csr(self, name: str) -> Csr | None:
        text = self._stores.read_file(self._file(name, "req"))
        if text is None:
            return None
        try:
            parsed = x509.load_pem_x509_csr(text.encode())
        except UNREADABLE:
            # Half a file of a run that was broken off.
            return None
        return Csr(parsed.public_bytes(Encoding.PEM).decode())

    def _certreq(self, *arguments: str) -> None:
        lines = self._remote.run(Command("certreq.exe", arguments=arguments))
        codes = self._remote.run(cmdlet("Get-Variable", Name="LASTEXITCODE", ValueOnly=True))
        if codes == [0]:
            return
        code = codes[0] if codes and isinstance(codes[0], int) else 0
        raise Rejected(
            f"{self._label}: certreq {arguments[0]}: {plain(texts(map(str, lines)))}",
            remedy=_REMEDIES[arguments[0]],
            connector=self._label,
            code=f"0x{code & 0xFFFFFFFF:08X}",
        )

    def _file(self, name: str, kind: str) -> str:
        return self._stores.place(f"{name}.{kind}")


def _public_key(certificate: x509.Certificate) -> bytes:
    try:
        key = certificate.public_key()
    except UNREADABLE:
        return b""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
