"""The certificates in HAProxy's memory.

The API is text over the stats socket (HAProxy Management Guide 2.6 and 2.8,
section 9.3 "Unix Socket commands": ``set ssl cert``, ``commit ssl cert``, ``abort
ssl cert``, ``show ssl cert``; looked up November 2026, behaviour tried with
2.6.12 and 2.8.25). What the guide does not say and was seen:

* a second blank line after the payload is taken as an empty command, which 2.6
  answers with its whole help after the success;
* while a transaction is open, 2.6 puts the payload of ``set ssl cert`` for
  another file into *that* transaction and reports success with its name;
* a key that does not fit the certificate is refused by ``commit`` only, and the
  transaction stays open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from blocks._target import texts
from blocks.targets.haproxy.runtime_api import RuntimeApi
from certrail.errors import ActivationRefused, Busy, NotFound, UnexpectedReply
from certrail.log import plain

_TRANSACTION = re.compile(r"Transaction (?:created|updated) for certificate (.+)!")


@dataclass(frozen=True, slots=True)
class Shown:
    """What ``show ssl cert`` says of one file."""

    sha1: str
    used: bool
    names: tuple[str, ...]


class Memory:
    """What one running HAProxy has."""

    def __init__(self, api: RuntimeApi) -> None:
        self._api = api
        self._label = api.label

    def replace(self, path: str, content: bytes) -> None:
        """Put *content* there as one transaction.

        Raises:
            ActivationRefused: HAProxy does not take it.
            Busy: somebody else is about to change something.
        """
        _, open_for = self.files()
        if open_for and not (open_for == path and self.shown_sha1(f"*{path}") == sha1_of(content)):
            raise self._occupied(open_for)
        said = self._api.run(f"set ssl cert {path}", content.decode())
        taken = _TRANSACTION.search(said)
        if taken is None:
            self._abort(path)
            raise ActivationRefused(f"HAProxy refused the certificate: {words(said)}")
        if taken[1] != path:
            # Opened between our look and our call; now it holds our pair under their name.
            self._api.run(f"abort ssl cert {taken[1]}")
            raise self._occupied(taken[1])
        said = self._api.run(f"commit ssl cert {path}")
        if "Success!" not in said:
            self._abort(path)
            if self.shown_sha1(path) != sha1_of(content):
                raise ActivationRefused(f"HAProxy refused the certificate: {words(said)}")

    def _abort(self, path: str) -> None:
        if self.files()[1] == path:
            self._api.run(f"abort ssl cert {path}")

    def _occupied(self, path: str) -> Busy:
        return Busy(
            f"{self._label}: somebody has begun to change {plain(path)} and not committed it",
            remedy=f"Finish it there: `commit ssl cert {plain(path)}`, or `abort ssl cert …`.",
            connector=self._label,
        )

    def files(self) -> tuple[list[str], str]:
        """Return the certificate files, and the one with an open transaction or "".

        Raises:
            UnexpectedReply: HAProxy does not list them.
        """
        said = self._api.run("show ssl cert")
        lines = [line for line in said.splitlines() if line]
        if "# filename" not in lines:
            raise UnexpectedReply(
                f"{self._label}: `show ssl cert` said: {words(said)}", connector=self._label
            )
        names = [line for line in lines if not line.startswith("#")]
        pending = next((name[1:] for name in names if name.startswith("*")), "")
        return [name for name in names if not name.startswith("*")], pending

    def shown(self, path: str) -> Shown | None:
        """Return what there is at *path*, None if nothing."""
        said = self._api.run(f"show ssl cert {path}")
        fields = dict(line.partition(": ")[::2] for line in said.splitlines())
        if "Can't display" in said:
            return None
        sha1 = fields.get("SHA1 FingerPrint", "").lower()
        names = fields.get("Subject Alternative Name", "").split(", ")
        used = fields.get("Status", "") == "Used"
        return Shown(sha1, used, tuple(one[4:] for one in names if one.startswith("DNS:")))

    def shown_sha1(self, path: str) -> str:
        """Return the SHA-1 of the certificate at *path*, "" if there is none."""
        shown = self.shown(path)
        return shown.sha1 if shown else ""

    def must_show(self, path: str) -> Shown:
        """Return what there is at *path*.

        Raises:
            NotFound: there is no certificate.
        """
        shown = self.shown(path)
        if shown is None or not shown.sha1:
            raise NotFound(
                f"{self._label}: HAProxy has no certificate file {path}",
                remedy="Set the endpoint's site to a name that `show ssl cert` lists: "
                + (plain(", ".join(self.files()[0][:5])) or "it lists none"),
                connector=self._label,
            )
        return shown


def leaf_of(pem: bytes) -> x509.Certificate:
    """Return the first certificate; ValueError if there is none."""
    return x509.load_pem_x509_certificate(pem)


def sha1_of(pem: bytes) -> str:
    """Return the SHA-1 of the first certificate, in lower-case hex."""
    return sha1_of_leaf(leaf_of(pem))


def sha1_of_leaf(leaf: x509.Certificate) -> str:
    """Return the SHA-1 of a certificate, in lower-case hex."""
    # Only to recognise a certificate that we know in full; HAProxy shows nothing better.
    return leaf.fingerprint(hashes.SHA1()).hex()  # noqa: S303


def words(said: str) -> str:
    """Return an answer of HAProxy's for people, without the help that may follow it."""
    return plain(texts(said.partition("Unknown command")[0].splitlines())) or "nothing"
