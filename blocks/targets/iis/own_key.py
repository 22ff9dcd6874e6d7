"""Keys that the machine of an IIS makes and keeps."""

from __future__ import annotations

import hashlib
from typing import ClassVar

from blocks._target import object_name
from blocks.targets.iis.bindings import Binding, find
from blocks.targets.iis.certreq import (
    LONGEST_COMMON_NAME,
    PERSONAL,
    Certreq,
    inf,
    is_for,
)
from blocks.targets.iis.remoting import Remoting
from blocks.targets.iis.store import thumbprint
from blocks.targets.iis.target import LONGEST_NAME, IisTarget
from certrail.connectors import HoldsKey, Traits
from certrail.errors import InvalidRequest, UnexpectedReply
from certrail.log import plain
from certrail.model import Bundle, Csr, Fingerprint, Site, SubjectSpec
from certrail.names import parse_names
from certrail.x509.chain import must_be_installable


class KeyOnIisTarget(IisTarget, HoldsKey):
    """One IIS, whose machine makes the keys itself.

    A binding has one request that waits for its certificate. One for other names or
    another kind of key was given up, and goes when the next is made.
    """

    traits: ClassVar[Traits] = Traits(
        key_on_device=True,
        restores_by=IisTarget.traits.restores_by,
        longest_name=LONGEST_NAME,
    )

    def __init__(self, remote: Remoting) -> None:
        super().__init__(remote, store=PERSONAL)
        self._certreq = Certreq(remote, self._stores)

    def generate_csr(self, site: Site, subject: SubjectSpec) -> Csr:
        names = self._names(subject)
        name = _name(find(self._bindings(), site.id, self._label))
        waiting = self._certreq.waiting(name)
        if waiting is not None and is_for(waiting, names, subject.algorithm):
            return waiting
        self._give_up(name)
        made = self._certreq.new(name, inf(name, names, subject.algorithm))
        if not is_for(made, names, subject.algorithm):
            self._certreq.give_up(name)
            raise UnexpectedReply(
                f"{self._label}: the request that certreq made is not for "
                f"{plain(', '.join(names))} and its key",
                remedy="Set `key_on_device: false`. Nothing was ordered.",
                connector=self._label,
            )
        return made

    def _names(self, subject: SubjectSpec) -> list[str]:
        names = parse_names(subject.names)
        remedy = "Change the endpoint or its profile, or set `key_on_device: false`."
        if addresses := [one.text for one in names if one.is_ip]:
            raise InvalidRequest(
                f"{self._label}: no request for IP addresses is made on the machine: "
                + ", ".join(addresses),
                remedy=remedy,
            )
        if subject.attributes:
            raise InvalidRequest(
                f"{self._label}: a request that is made on the machine has no more in its subject "
                "than a common name",
                remedy=remedy,
            )
        if all(len(one.text) > LONGEST_COMMON_NAME for one in names):
            raise InvalidRequest(
                f"{self._label}: a request that is made on the machine needs a name of at most "
                f"{LONGEST_COMMON_NAME} characters",
                remedy=remedy,
            )
        return [one.text for one in names]

    def _give_up(self, name: str) -> None:
        """Remove what an earlier request left: a key that waits, or one that never got live."""
        self._certreq.give_up(name)
        left = [one for one in self._stores.entries(PERSONAL) if one.friendly_name == name]
        used = self._used() if left else set()
        for one in left:
            if one.thumbprint not in used:
                self._stores.remove(PERSONAL, one.thumbprint)

    def _must_take(self, bundle: Bundle) -> None:
        must_be_installable(bundle)
        if bundle.key is not None:
            raise InvalidRequest(
                f"{self._label} keeps its keys, and this certificate has another one",
                remedy="Start a reissue, or set `key_on_device: false`. Nothing was uploaded.",
            )
        if not (self._is_there(bundle) or self._certreq.pending(bundle.chain.public_key_der())):
            raise InvalidRequest(
                f"{self._label}: the machine no longer has the key of this certificate",
                remedy="Start a reissue, which makes a new key.",
            )

    def _called(self, binding: Binding, new: Fingerprint) -> str:
        return _name(binding)

    def _put(self, bundle: Bundle, name: str) -> None:
        if not self._is_there(bundle):
            self._certreq.accept(name, bundle.chain.leaf)
            if not self._is_there(bundle):
                raise UnexpectedReply(
                    f"{self._label}: certreq took the certificate, and it is not in the store "
                    f"LocalMachine\\{PERSONAL} with its key",
                    connector=self._label,
                )
        self._certreq.sweep(name)

    def _is_there(self, bundle: Bundle) -> bool:
        present = self._stores.read(PERSONAL, thumbprint(bundle.chain.leaf))
        return present is not None and present.has_key


def _name(binding: Binding) -> str:
    """Return the friendly name of what is made for *binding*: it is chosen before the certificate.

    An INF file takes it as it is.
    """
    digest = Fingerprint(hashlib.sha256(f"key for {binding.id}".encode()).hexdigest())
    return object_name(binding.host or binding.site, digest, LONGEST_NAME)
