"""What we ask of whatever takes a certificate: servers, appliances, stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from certrail.connectors.base import Connector
from certrail.model import (
    Bundle,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Site,
    Staged,
    SubjectSpec,
)


@dataclass(frozen=True, slots=True)
class Traits:
    """What a kind of target can and cannot do; shown in its documentation.

    Attributes:
        key_on_device: the private key can be made there and never leaves it.
        transactional: a change happens as a whole or not at all, by the target's own means.
        restores_by: how the previous certificate comes back, for people.
        needs_save: a running change is lost at a restart unless it is saved as well.
        concurrency: how many changes the target takes at the same time.
        key_algorithms: keys that it takes.
        longest_name: of the objects that are made there, 0 for no limit known.
        settles_within: how long a change may take until every client sees it; at least
            as long is waited before it counts as failed.
        serves: whether clients connect to it; False for a store, whose certificates
            other programs serve.
    """

    key_on_device: bool = False
    transactional: bool = False
    restores_by: str = "the previous version is kept beside the new one"
    needs_save: bool = False
    concurrency: int = 1
    key_algorithms: frozenset[KeyAlgorithm] = frozenset(KeyAlgorithm)
    longest_name: int = 0
    settles_within: timedelta = timedelta(0)
    serves: bool = True


class InstallTarget(Connector):
    """A server, appliance or cloud service that serves a certificate.

    Attributes:
        lock_name: what its changes are made one after the other under; whoever opened it
            sets this to the same text for every way of reaching the same machine. "" means
            the connector.
    """

    traits: ClassVar[Traits] = Traits()
    lock_name: str = ""

    @abstractmethod
    def sites(self) -> Iterator[Site]:
        """List the places on it that can take a certificate (inventory)."""

    @abstractmethod
    def serving(self, site: Site) -> Fingerprint | None:
        """Return what the configuration points at now; None if nothing."""

    @abstractmethod
    def stage(self, site: Site, bundle: Bundle, replaces: Fingerprint | None) -> Staged:
        """Upload beside the live certificate without touching it. Twice is one.

        Raises:
            Conflict: the site no longer serves *replaces* (not checked when that is None).
            InvalidRequest: the target cannot be changed safely; says which lines a person
                would change.
        """

    @abstractmethod
    def activate(self, staged: Staged) -> str:
        """Make it live. If the target refuses, leave the old one live. Twice is quiet.

        Returns one line for people: what was changed, tested and reloaded.

        Raises:
            ActivationRefused: refused; the previous certificate still serves.
        """

    @abstractmethod
    def restore(self, staged: Staged) -> str:
        """Put back what was live before ``activate``; quiet if it still is.

        Returns one line for people.
        """

    @abstractmethod
    def discard(self, staged: Staged) -> None:
        """Remove leftovers of a stage that is no longer wanted, and versions older than kept."""


class DeliveryTarget(Connector):
    """A directory, vault or service that stores a certificate unserved.

    Attributes:
        lock_name: see :class:`InstallTarget`.
    """

    traits: ClassVar[Traits] = Traits()
    lock_name: str = ""

    @abstractmethod
    def delivered(self, site: Site) -> Fingerprint | None:
        """Return the fingerprint stored there now."""

    @abstractmethod
    def deliver(self, site: Site, bundle: Bundle) -> str:
        """Store it whole or not at all. Same fingerprint again is quiet.

        Returns one line for people.
        """


class HoldsKey(ABC):
    """A target that makes its own key and never gives it out."""

    @abstractmethod
    def generate_csr(self, site: Site, subject: SubjectSpec) -> Csr:
        """Make a key on the target and return a CSR for it."""


class MakesKeyFiles(ABC):
    """A target whose keys are files, which can be made where they are used.

    Attributes:
        keeps_keys: whether this server's can stay there: not where key and certificate are
            one file, which is read back.
    """

    keeps_keys: bool = True

    @abstractmethod
    def make_csr(self, site: Site, subject: SubjectSpec, reference: str) -> Csr:
        """Make the key of that *reference* there, unless it is there, and return a CSR for it.

        ``stage`` takes the certificate without its key then.

        Raises:
            InvalidRequest: this server's keys cannot stay there.
        """


class SwitchesTogether(ABC):
    """A server whose sites can be switched together, with one test and one reload for all.

    Each site has an object of its own. One of them leads: :meth:`put` for each, then one
    :meth:`accepts` and one :meth:`reload`, then :meth:`keep` for each, or :meth:`put_back` in
    the reverse order.

    Attributes:
        group: what is the same for all sites of one server on one machine, "" for none.
        is_sound: the configuration was just tested, so that ``stage`` need not.
    """

    group: str = ""
    is_sound: bool = False

    @abstractmethod
    def must_be_sound(self) -> None:
        """Test the configuration as it is.

        Raises:
            ActivationRefused: the server refuses it, before anything was changed.
        """

    @abstractmethod
    def put(self, staged: Staged) -> bool:
        """Do all of ``activate`` but test and reload; False if it was live already.

        Raises:
            CertrailError: it cannot be done; nothing was changed.
        """

    @abstractmethod
    def accepts(self) -> str:
        """Return "" if the server accepts its configuration, else its words."""

    @abstractmethod
    def reload(self) -> str:
        """Return "" once the server uses its configuration, else its words."""

    @property
    @abstractmethod
    def told(self) -> str:
        """How test and reload went, for people."""

    @abstractmethod
    def keep(self, told: str) -> str:
        """Note that the server uses it; returns one line for people that ends with *told*."""

    @abstractmethod
    def put_back(self) -> None:
        """Undo :meth:`put`; the server is not told."""
