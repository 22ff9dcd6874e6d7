"""Keys that the BIG-IP makes and keeps.

Calls (F5's module ``bigip_ssl_csr`` of F5Networks/f5-ansible; issue 1490 of
F5Networks/f5-common-python, which lists what ``create sys crypto csr`` takes; F5 DevCentral's
ACME client for BIG-IP and DigiCert's agent, for how several names are written and for
``tmsh list``; looked up November 2026):

* ``POST /mgmt/tm/sys/crypto/key`` makes a key, which is an ``ssl-key`` from then on;
* ``POST /mgmt/tm/sys/crypto/csr`` makes a request for it, ``GET`` and ``DELETE`` by its name;
* ``POST /mgmt/tm/util/bash`` with ``tmsh list sys crypto csr NAME`` shows its text. ``GET``
  is not documented to do that.

Properties are written as everywhere in iControl REST: the words of ``tmsh`` (``curve-name``,
``key-size``, ``key-type``, ``security-type``, ``subject-alternative-name``) in camel case. So does
F5: ``commonName`` and ``key`` in ``bigip_ssl_csr``; ``subjectAlternativeName`` with
``DNS:...,IP:...`` in "Certificate management" of the BIG-IQ API; ``keyType`` ("rsa-private",
"ec-private") and ``subjectAlternativeName`` in its "SSL Certificate Signing Requests". That the
endpoint takes alternative names: issue 2328 of F5Networks/f5-ansible. The sources show 2048 and
4096 bits and the curves prime256v1 and secp384r1, and names without a partition, which are those
of Common.
"""

from __future__ import annotations

import re
from typing import ClassVar

from blocks._target import is_ours, must_come_without_key, waiting_name
from blocks.targets.bigip.objects import Files
from blocks.targets.bigip.target import LONGEST_STEM, BigIpTarget
from certrail.connectors import HoldsKey, Traits
from certrail.errors import Conflict, InvalidRequest, NotFound, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import Bundle, Csr, Fingerprint, KeyAlgorithm, Site, Staged, SubjectSpec
from certrail.names import Name, parse_names
from certrail.remote import http
from certrail.x509.csr import CsrContent, read_csr

_KINDS = {
    KeyAlgorithm.RSA_2048: {"keyType": "rsa-private", "keySize": "2048"},
    KeyAlgorithm.RSA_4096: {"keyType": "rsa-private", "keySize": "4096"},
    KeyAlgorithm.ECDSA_P256: {"keyType": "ec-private", "curveName": "prime256v1"},
    KeyAlgorithm.ECDSA_P384: {"keyType": "ec-private", "curveName": "secp384r1"},
}
_REQUESTS = "/mgmt/tm/sys/crypto/csr"
_PEM = re.compile(
    r"-----BEGIN CERTIFICATE REQUEST-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE REQUEST-----"
)
_LONGEST_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1


class KeyOnBigIpTarget(BigIpTarget, HoldsKey):
    """One BIG-IP, which makes the keys itself.

    A profile has one key that waits for its certificate. It belongs to the certificate that
    the profile has: once another one is installed, the next key has another name.
    """

    traits: ClassVar[Traits] = Traits(
        key_on_device=True,
        transactional=True,
        restores_by=BigIpTarget.traits.restores_by,
        needs_save=True,
        longest_name=BigIpTarget.traits.longest_name,
        key_algorithms=frozenset(_KINDS),
    )

    # The key stays: a retry needs it.
    _left_behind = ("cert", "chain")

    def generate_csr(self, site: Site, subject: SubjectSpec) -> Csr:
        names = parse_names(subject.names)
        common = next((n.text for n in names if len(n.text) <= _LONGEST_COMMON_NAME), None)
        if common is None:
            raise InvalidRequest(
                f"{self._label}: a request of a BIG-IP has a common name, and each of "
                f"{plain(', '.join(subject.names))} is too long for one",
                remedy="Add a name of at most 64 characters, or set `key_on_device: false`.",
            )
        if subject.algorithm not in _KINDS:
            raise InvalidRequest(
                f"{self._label}: it is not known how a BIG-IP makes {subject.algorithm} keys",
                remedy=f"Set `key.algorithm` of the profile to one of {', '.join(sorted(_KINDS))}.",
            )
        self._pair.must_be_active()
        profile = self._profile(site.id)
        entry = self._entry(profile, site.settings)
        stem = waiting_name(
            profile.fullPath, self._files.fingerprint(str(entry["cert"])), LONGEST_STEM
        )
        waits = self._files.exists("ssl-key", f"{stem}.key")
        csr = self._request(stem) if waits else None
        if csr and (had := read_csr(csr)).algorithm == subject.algorithm:
            csr = csr if _is_for(had, names) else None
        if csr is None:
            csr = self._make(stem, common, names, None if waits else subject.algorithm)
        content = read_csr(csr)
        if waits and content.algorithm != subject.algorithm:
            raise Conflict(
                f"{self._label}: a key of another kind waits for its certificate",
                remedy=f"An earlier request began it. Remove {stem}.key (System > Certificate "
                "Management) if nobody needs it, then retry.",
                connector=self._label,
            )
        if content.algorithm != subject.algorithm or not _is_for(content, names):
            raise UnexpectedReply(
                f"{self._label}: the request {stem}.csr is not for these names and its key",
                remedy="Set `key_on_device: false`. Nothing was ordered.",
                connector=self._label,
            )
        return csr

    def _make(
        self, stem: str, common: str, names: tuple[Name, ...], algorithm: KeyAlgorithm | None
    ) -> Csr:
        """Make a request, and first a key unless there is one (*algorithm* is None then)."""
        self._pair.must_be_synchronised()
        try:
            # One for other names, or for a key that is gone.
            self._delete_request(stem)
            if algorithm is not None:
                self._session.call(
                    "POST",
                    "/mgmt/tm/sys/crypto/key",
                    json={
                        "name": f"{stem}.key",
                        "partition": self._partition,
                        "securityType": "normal",
                        **_KINDS[algorithm],
                    },
                )
                effect("bigip.key", connector=self._label, object=stem)
            alternative = [f"{'IP' if name.is_ip else 'DNS'}:{name.text}" for name in names]
            self._session.call(
                "POST",
                _REQUESTS,
                json={
                    "name": f"{stem}.csr",
                    "partition": self._partition,
                    "key": f"{stem}.key",
                    "commonName": common,
                    "subjectAlternativeName": ",".join(alternative),
                },
            )
        finally:
            # Otherwise it would be what the next installation waits for.
            self._pair.save()
        made = self._request(stem)
        if made is None:
            raise UnexpectedReply(
                f"{self._label}: the device made no request {stem}.csr", connector=self._label
            )
        return made

    def _request(self, stem: str) -> Csr | None:
        try:
            self._session.call("GET", f"{_REQUESTS}/{stem}.csr")
        except NotFound:
            return None
        # The name is letters, digits, "_", "." and "-": nothing in it means anything to a shell.
        shown = self._session.call(
            "POST",
            "/mgmt/tm/util/bash",
            json={"command": "run", "utilCmdArgs": f"-c 'tmsh list sys crypto csr {stem}.csr'"},
        )
        found = _PEM.search(str(http.json_of(shown, dict).get("commandResult", "")))
        if found is None:
            raise UnexpectedReply(
                f"{self._label}: the device does not show the request {stem}.csr",
                remedy="The account needs the role Administrator, and in Appliance mode there is "
                "no shell: set `key_on_device: false` then.",
                connector=self._label,
            )
        return Csr(found[0] + "\n")

    def _delete_request(self, stem: str) -> bool:
        try:
            self._session.call("DELETE", f"{_REQUESTS}/{stem}.csr")
        except NotFound:
            return False
        return True

    def _must_take(self, bundle: Bundle) -> None:
        must_come_without_key(bundle, self._label)

    def _key(
        self, profile: str, live: str, bundle: Bundle, present: Fingerprint | None, stem: str
    ) -> tuple[str, Files]:
        if present == bundle.chain.fingerprint:
            return live, {}
        waits = waiting_name(profile, present, LONGEST_STEM)
        path = f"/{self._partition}/{waits}.key"
        there = self._files.exists("ssl-key", f"{waits}.key")
        request = self._request(waits) if there else None
        if request and request.public_key_der() == bundle.chain.public_key_der():
            return path, {}
        # Another certificate for the key that is live.
        used = self._request(_stem(live)) if is_ours(_stem(live)) else None
        if used and used.public_key_der() == bundle.chain.public_key_der():
            return live, {}
        if there and request is None:
            # A peer that took over has the key, but perhaps not the request: it still refuses
            # a certificate and a key that do not match.
            return path, {}
        raise InvalidRequest(
            f"{self._label}: the device no longer has the key of this certificate",
            remedy="Start a reissue, which makes a new key. Nothing was uploaded.",
        )

    def _tidy(self, staged: Staged) -> bool:
        # The request stays as long as its key: it tells which certificates the key is for.
        old = str(staged.data["old"]["key"])
        replaced = old != self._wanted(staged)["key"] and is_ours(_stem(old))
        return replaced and self._delete_request(_stem(old))


def _stem(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".key")


def _is_for(content: CsrContent, names: tuple[Name, ...]) -> bool:
    return content.signature_valid and set(content.names) == {name.text for name in names}
