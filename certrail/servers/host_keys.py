"""Private keys that are made on the host they serve on, and never leave it.

::

    <base>/<name>/keys/<reference>.pem     made by the host's own openssl
                       <reference>.pub     its public key, where only another account reads it
    <base>/<name>/versions/<…>/privkey.pem -> ../../keys/<reference>.pem

Only CSRs and public keys come back: what is read here is what ``openssl req``
and ``openssl pkey -pubout`` print.
"""

from __future__ import annotations

import posixpath
import re
from datetime import timedelta

from cryptography.hazmat.primitives import serialization

from certrail.connectors import CommandResult, Host
from certrail.errors import InvalidRequest, KeyUnavailable, NotFound, UnexpectedReply
from certrail.log import effect, plain
from certrail.model import Csr, KeyAlgorithm, SubjectSpec
from certrail.names import parse_names
from certrail.servers.key_file import KeyFile
from certrail.x509.csr import read_csr

_LONGEST_COMMON_NAME = 64
_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,100}\Z")
_OPTIONS = {
    KeyAlgorithm.ECDSA_P256: ("EC", "ec_paramgen_curve:P-256"),
    KeyAlgorithm.ECDSA_P384: ("EC", "ec_paramgen_curve:P-384"),
    KeyAlgorithm.RSA_2048: ("RSA", "rsa_keygen_bits:2048"),
    KeyAlgorithm.RSA_3072: ("RSA", "rsa_keygen_bits:3072"),
    KeyAlgorithm.RSA_4096: ("RSA", "rsa_keygen_bits:4096"),
}
_TIMEOUT = timedelta(seconds=120)
# The key appears under its name whole or not at all, and is not made twice: a run that was killed
# after it finds it again. What openssl says on standard error is the shell's to pass on.
_MAKE = (
    "umask 077; command -v openssl >/dev/null 2>&1 || exit 127; "
    '[ -f "$1" ] && exit 0; t="$1.new"; rm -f -- "$t"; '
    'openssl genpkey -algorithm "$2" -pkeyopt "$3" -out "$t" || exit 1; '
    'if [ -n "$5$6" ]; then chown -- "$5${6:+:$6}" "$t" || exit 1; fi; '
    'chmod -- "$4" "$t" || exit 1; sync "$t" 2>/dev/null || :; mv -fT -- "$t" "$1"'
)


class HostKeys:
    """The keys of one site's certificates on one host."""

    def __init__(self, host: Host, directory: str, key_file: KeyFile) -> None:
        self._host = host
        self._key_file = key_file
        self.directory = posixpath.join(directory, "keys")

    def make_csr(self, subject: SubjectSpec, reference: str) -> Csr:
        """Make the key of that reference, unless it is there, and a CSR for it.

        Raises:
            NotFound: the host has no openssl.
            UnexpectedReply: openssl refused, or its CSR is not what was asked for.
        """
        if not _REFERENCE.match(reference):
            raise InvalidRequest(f"not a reference of a key: {plain(reference)!r}")
        path = posixpath.join(self.directory, f"{reference}.pem")
        self._host.make_directory(self.directory, mode=0o755)
        algorithm, option = _OPTIONS[subject.algorithm]
        wanted = self._key_file
        later = self._host.hands_over(wanted.owner)
        owner = "" if later else wanted.owner
        arguments = [path, algorithm, option, f"{wanted.mode:o}", owner, wanted.group]
        result = self._host.run(["sh", "-c", _MAKE, "sh", *arguments], timeout=_TIMEOUT)
        if result.exit_code == 127:
            raise NotFound(
                f"there is no openssl on {self._host.name} that could make the key there",
                remedy="Install it, or set `key: {location: store}` in the profile.",
                connector=self._host.name,
            )
        self._must_have_worked(result, "make a key")
        effect("key.make", host=self._host.name, path=path)
        csr = self._csr(subject, path)
        if later:
            # Once the key is given away, the account can no longer ask it for its public one.
            public = csr.parsed.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            self._host.write_file(_public(path), public)
        return csr

    def give(self, name: str) -> None:
        """Give a key to the account that is to read it, where that is done by a rule of sudo.

        Raises:
            PermissionRefused: no rule allows it.
        """
        owner, path = self._key_file.owner, posixpath.join(self.directory, name)
        if self._host.hands_over(owner):
            info = self._host.info(path)
            if info is not None and info.owner != owner:
                self._host.hand_over(path, owner)

    def find(self, public_key_der: bytes) -> str:
        """Return the file name of the key of a certificate with that public key.

        Raises:
            KeyUnavailable: the host has none.
        """
        try:
            names = self._host.list_directory(self.directory)
        except NotFound:
            names = ()
        for name in reversed(names):
            path = posixpath.join(self.directory, name)
            if name.endswith(".pem") and self.public_key(path) == public_key_der:
                return name
        raise KeyUnavailable(
            f"the private key of this certificate is not in {self.directory} on {self._host.name}",
            remedy="Start a reissue, which makes a new key.",
        )

    def public_key(self, path: str) -> bytes:
        """Return the SubjectPublicKeyInfo of the key in *path*, empty if there is none."""
        argv = ["openssl", "pkey", "-in", path, "-pubout"]
        result = self._host.run(argv, timeout=_TIMEOUT)
        text = result.stdout if result.exit_code == 0 else self._noted(path)
        try:
            found = serialization.load_pem_public_key(text)
        except ValueError:
            return b""
        return found.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def _noted(self, path: str) -> bytes:
        """Return what was noted of a key that was given away, empty if nothing was."""
        if not self._host.hands_over(self._key_file.owner):
            return b""
        try:
            return self._host.read_file(_public(self._host.real_path(path)))
        except NotFound:
            return b""

    def remove(self, name: str) -> None:
        """Remove a key that no version uses any more."""
        path = posixpath.join(self.directory, name)
        self._host.remove(path)
        self._host.remove(_public(path))

    def _csr(self, subject: SubjectSpec, path: str) -> Csr:
        common_name, configuration = _request(subject)
        digest = "-sha384" if subject.algorithm is KeyAlgorithm.ECDSA_P384 else "-sha256"
        argv = ["openssl", "req", "-new", digest, "-key", path, "-config", "/dev/stdin"]
        argv += ["-subj", f"/CN={common_name}" if common_name else "/"]
        result = self._host.run(argv, stdin=configuration.encode(), timeout=_TIMEOUT)
        self._must_have_worked(result, "make a CSR")
        csr = Csr(result.stdout.decode(errors="replace"))
        found = read_csr(csr)
        as_asked = set(found.names) == {name.text for name in parse_names(subject.names)}
        if not (as_asked and found.signature_valid and found.algorithm is subject.algorithm):
            raise UnexpectedReply(
                f"the CSR that openssl on {self._host.name} made is not what was asked for",
                remedy=f"Look at {path} there: another program may have put a key there.",
                connector=self._host.name,
            )
        return csr

    def _must_have_worked(self, result: CommandResult, what: str) -> None:
        if result.exit_code != 0:
            raise UnexpectedReply(
                f"openssl on {self._host.name} did not {what}: {plain(result.text)[-300:]}",
                remedy="Try it there by hand; OpenSSL 1.1.1 or later is needed.",
                connector=self._host.name,
            )


def _public(path: str) -> str:
    return f"{path.removesuffix('.pem')}.pub"


def _request(subject: SubjectSpec) -> tuple[str, str]:
    """Return the common name and a configuration for ``openssl req``.

    Names consist of what host names and addresses do, so none can end its line.
    """
    names = parse_names(subject.names)
    fitting = (one.text for one in names if not one.is_ip and len(one.text) <= _LONGEST_COMMON_NAME)
    common_name = next(fitting, "")
    kinds = [("IP" if one.is_ip else "DNS", one.text) for one in names]
    listed = "".join(f"{kind}.{number} = {text}\n" for number, (kind, text) in enumerate(kinds))
    critical = "" if common_name else "critical, "
    return common_name, (
        "[req]\nprompt = no\nutf8 = yes\ndistinguished_name = dn\nreq_extensions = ext\n"
        f"[dn]\nCN = {common_name or 'none'}\n"
        f"[ext]\nsubjectAltName = {critical}@names\n[names]\n{listed}"
    )
