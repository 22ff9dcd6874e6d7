"""Keys that the NetScaler makes and keeps.

Calls (NITRO reference of ``sslrsakey`` and ``sslcertreq``): a key is made into a file, and a
request for it into another, which is read. The reference takes RSA and DSA keys for a request,
wants country, state and organization in it, and does not say how several names are written: it
gets one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import ClassVar

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from blocks._target import is_ours, must_come_without_key, waiting_name
from blocks.targets.netscaler.target import LONGEST_FILE, NetScalerTarget
from certrail.connectors import HoldsKey, Traits
from certrail.errors import Conflict, InvalidRequest, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import (
    UNREADABLE,
    Bundle,
    Chain,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Site,
    Staged,
    SubjectSpec,
)
from certrail.names import parse_names

_BITS = {
    KeyAlgorithm.RSA_2048: 2048,
    KeyAlgorithm.RSA_3072: 3072,
    KeyAlgorithm.RSA_4096: 4096,
}


class KeyOnNetScalerTarget(NetScalerTarget, HoldsKey):
    """One NetScaler, which makes the keys itself.

    A pair has one key that waits for its certificate. It belongs to the certificate that
    the pair has: once another one is installed, the next key has another name.
    """

    traits: ClassVar[Traits] = Traits(
        key_on_device=True,
        restores_by=NetScalerTarget.traits.restores_by,
        needs_save=True,
        longest_name=LONGEST_FILE,
        key_algorithms=frozenset(_BITS),
    )

    # The key stays: a retry needs it.
    _left_behind = ("cert",)

    def __init__(self, client: httpx.Client, label: str, subject: Mapping[str, str]) -> None:
        super().__init__(client, label)
        self._subject = subject

    def generate_csr(self, site: Site, subject: SubjectSpec) -> Csr:
        (name, *others) = parse_names(subject.names)
        if others or name.is_ip:
            raise InvalidRequest(
                f"{self._label}: a request of a NetScaler is for one DNS name, not for "
                + plain(", ".join(subject.names)),
                remedy="Order one name for each pair, or set `key_on_device: false`.",
            )
        if subject.algorithm not in _BITS:
            raise InvalidRequest(
                f"{self._label}: a NetScaler makes no requests for {subject.algorithm} keys",
                remedy="Set `key.algorithm` of the profile to rsa-2048.",
            )
        self._must_be_primary()
        stem = _stem(site.id, self.serving(site))
        waiting = self._request(stem)
        if waiting is not None:
            return self._kept(stem, waiting, name.text, subject.algorithm)
        # A key whose request was never read: nobody has a certificate for it.
        self._nitro.remove_file(f"{stem}.key")
        self._create(
            "sslrsakey",
            {"keyfile": f"{stem}.key", "bits": _BITS[subject.algorithm], "keyform": "PEM"},
        )
        # It takes no wildcard as a common name.
        common = {} if name.text.startswith("*") else {"commonname": name.text}
        self._create(
            "sslcertreq",
            {
                "reqfile": f"{stem}.csr",
                "keyfile": f"{stem}.key",
                "keyform": "PEM",
                "digestmethod": "SHA256",
                "subjectaltname": f"DNS:{name.text}",
                **self._subject,
                **common,
            },
        )
        effect("netscaler.key", connector=self._label, files=stem)
        made = self._request(stem)
        if made is None or not _is_for(made, name.text, subject.algorithm):
            raise UnexpectedReply(
                f"{self._label}: the request {stem}.csr is not for {name.text} and its key",
                remedy="Set `key_on_device: false`. Nothing was ordered.",
                connector=self._label,
            )
        return made

    def discard(self, staged: Staged) -> None:
        super().discard(staged)
        pair = self._pair(staged.site)
        if pair is None or pair.get("cert") != self._wanted(staged)["cert"]:
            return
        for key in (str(staged.data["key"]), posixpath.basename(str(staged.data["old"]["key"]))):
            stem = key.removesuffix(".key")
            if is_ours(stem):
                self._nitro.remove_file(f"{stem}.csr")

    def _must_take(self, bundle: Bundle) -> None:
        must_come_without_key(bundle, self._label)

    def _put_key(self, name: str, bundle: Bundle, present: Fingerprint | None, stem: str) -> str:
        pair = self._pair(name)
        leaf = self._leaf(pair) if pair is not None else None
        live = Chain.of([leaf]).public_key_der() if leaf is not None else b""
        if pair is not None and live == bundle.chain.public_key_der():
            # The certificate itself, or another one for the key that is live.
            return posixpath.basename(str(pair["key"]))
        waits = _stem(name, present)
        made = self._request(waits)
        if made is None or made.public_key_der() != bundle.chain.public_key_der():
            raise InvalidRequest(
                f"{self._label}: the appliance no longer has the key of this certificate",
                remedy="Start a reissue, which makes a new key.",
            )
        return f"{waits}.key"

    def _create(self, kind: str, body: Mapping[str, object]) -> None:
        self._nitro.call("POST", kind, params={"action": "create"}, json={kind: dict(body)})

    def _request(self, stem: str) -> Csr | None:
        content = self._nitro.file(f"{stem}.csr")
        if content is None:
            return None
        try:
            parsed = x509.load_pem_x509_csr(content)
        except UNREADABLE as exc:
            raise UnexpectedReply(
                f"{self._label}: {stem}.csr cannot be read", connector=self._label
            ) from exc
        return Csr(parsed.public_bytes(Encoding.PEM).decode())

    def _kept(self, stem: str, waiting: Csr, name: str, algorithm: KeyAlgorithm) -> Csr:
        if _is_for(waiting, name, algorithm):
            return waiting
        raise Conflict(
            f"{self._label}: a key waits for a certificate for another name or of another size",
            remedy="An earlier request began it. Remove the files "
            f"{stem}.key and {stem}.csr of /nsconfig/ssl if nobody needs them, then retry.",
            connector=self._label,
        )


def _stem(site: str, present: Fingerprint | None) -> str:
    """Return what the files are called of the key that waits beside the certificate *present*."""
    return waiting_name(site, present, LONGEST_FILE - len(".csr"))


def _is_for(csr: Csr, name: str, algorithm: KeyAlgorithm) -> bool:
    try:
        parsed = csr.parsed
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = parsed.public_key()
    except (*UNREADABLE, x509.ExtensionNotFound):
        return False
    wanted = names.get_values_for_type(x509.DNSName) == [name]
    return wanted and isinstance(key, rsa.RSAPublicKey) and key.key_size == _BITS[algorithm]
