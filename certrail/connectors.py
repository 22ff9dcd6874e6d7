"""What we ask of the outside world: one abstract class per kind of connector.

A vendor lives in ``blocks/<kind>/<vendor>.py`` and nothing outside that file
names it. Every method may raise any ``ConnectorError``; a method's docstring
lists only the errors callers treat specially. No method sleeps or retries,
and each has a deadline of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from certrail.message import Message
from certrail.model import (
    Account,
    Authorization,
    Bundle,
    Chain,
    Challenge,
    ChallengeKind,
    Csr,
    Fingerprint,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderSpec,
    RenewalInfo,
    RevocationReason,
    Site,
    Staged,
    SubjectSpec,
    TxtRecord,
)
from certrail.wait import Pending


class Connector(ABC):
    """Something outside that we can talk to."""

    @abstractmethod
    def check(self) -> str:
        """Make one cheap authenticated call.

        Returns one line for people about what answered. Changes nothing.
        """


class CertificateAuthority(Connector):
    """Issues certificates for a CSR."""

    @abstractmethod
    def open_order(self, spec: OrderSpec) -> Order:
        """Start an order for the names in *spec*.

        Call only after ``find_order`` (where offered) returned nothing for
        ``spec.key``. A CA with no notion of an order returns one that is
        ready and has no remote id.

        Raises:
            Rejected: the CA will not issue for these names.
        """

    @abstractmethod
    def reopen(self, order: Order) -> Order:
        """Return *order* as the CA sees it now, found by its ``remote_id``.

        Raises:
            NotFound: the CA knows no such order any more.
        """

    @abstractmethod
    def finalize(self, order: Order, csr: Csr) -> Order:
        """Hand over the CSR. Asking twice with the same CSR is one order."""

    @abstractmethod
    def collect(self, order: Order) -> Chain | Pending:
        """Return the chain, leaf first and without root, or Pending while the CA is working.

        Raises:
            Rejected: the CA gave up on the order.
        """

    @abstractmethod
    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        """Revoke the leaf. Already revoked is success."""


class FindsOrders(ABC):
    """A CA that can be asked for an order by our own reference."""

    @abstractmethod
    def find_order(self, key: OrderKey) -> Order | None:
        """Return the order opened earlier under *key*, whatever its state."""


class ListsOrders(ABC):
    """A CA that can list the orders of our account (RFC 8555 section 7.1.2.1).

    It finds an order again whose URL was lost with the reply, although the
    CA knows nothing of our reference.
    """

    @abstractmethod
    def unfinished_orders(self, names: Sequence[str]) -> tuple[Order, ...]:
        """Return pending and ready orders for exactly *names*; empty where none are listed.

        The ``key`` of what is returned is empty: whose they are is for the caller to say.
        """


class ValidatesDomains(ABC):
    """A CA that wants proof of control first (ACME, public REST CAs)."""

    @abstractmethod
    def ensure_account(self) -> Account:
        """Create the account, or find and verify the existing one."""

    @abstractmethod
    def authorizations(self, order: Order) -> tuple[Authorization, ...]:
        """Return the state of every name of *order*, with the challenges on offer."""

    @abstractmethod
    def respond(self, order: Order, challenge: Challenge) -> None:
        """Tell the CA that *challenge* may be checked now. Twice is quiet."""


class OffersRenewalInfo(ABC):
    """A CA that says when it wants a certificate renewed (RFC 9773)."""

    @abstractmethod
    def renewal_info(self, chain: Chain) -> RenewalInfo | None:
        """Return the suggested window, None if the CA offers none for it."""

    @abstractmethod
    def replaces_id(self, chain: Chain) -> str:
        """Return the identifier for ``OrderSpec.replaces``, "" where it cannot be made."""


class DnsProvider(Connector):
    """Publishes TXT records in zones it is authoritative for."""

    propagation_timeout: timedelta = timedelta(minutes=2)
    poll_interval: timedelta = timedelta(seconds=2)
    appends_atomically: bool = True
    """False where a change is read-modify-write; the step then holds a lock."""

    @abstractmethod
    def zone_of(self, fqdn: str) -> str:
        """Return the zone that holds *fqdn*, without a trailing dot.

        Raises:
            NotFound: none of this connector's zones does.
        """

    @abstractmethod
    def append_txt(self, record: TxtRecord) -> None:
        """Add one value. Other values at the name stay; a duplicate is quiet."""

    @abstractmethod
    def delete_txt(self, record: TxtRecord) -> None:
        """Remove exactly this name and value. Absent is success."""

    @abstractmethod
    def find_txt(self, fqdn: str) -> frozenset[str]:
        """Return the values the provider holds, not what resolvers see."""

    @abstractmethod
    def wait_until_visible(self, records: Sequence[TxtRecord], *, present: bool = True) -> str:
        """Block until every authoritative server shows (or no longer shows) *records*.

        Returns one line for people: which servers were asked. This is the one
        connector method that waits, since only the provider knows its servers.

        Raises:
            NotPropagated: a server did not show it within ``propagation_timeout``.
        """


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command on a host ended. Output is bytes, cut at a limit the host states."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    seconds: float

    @property
    def text(self) -> str:
        """Standard error and output together, decoded leniently, for messages."""
        return (self.stderr + self.stdout).decode(errors="replace").strip()


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is at a path on a host; *mode* is the permission bits only."""

    path: str
    kind: str
    """``file``, ``directory``, ``link`` or ``other``."""
    mode: int
    owner: str
    group: str
    size: int
    target: str = ""
    """Where a link points, as written in it."""


class Host(Connector):
    """A machine whose files and commands we may use: local, or over SSH.

    Paths are absolute POSIX paths. A method that takes *path* never passes it
    through a shell unquoted.

    Attributes:
        name: the connector's name, for people and for locks.
    """

    name: str

    @abstractmethod
    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: timedelta | None = None
    ) -> CommandResult:
        """Run one command and wait for it, 60 seconds unless told.

        A non-zero exit code is a result, not an error.

        Raises:
            Unreachable: the deadline passed or the connection broke; the
                command was told to end.
        """

    @abstractmethod
    def read_file(self, path: str, *, limit: int = 16 * 1024 * 1024) -> bytes:
        """Return the content.

        Raises:
            NotFound: nothing there.
            PermissionRefused: not allowed to read it.
        """

    @abstractmethod
    def write_file(
        self, path: str, content: bytes, *, mode: int = 0o644, owner: str = "", group: str = ""
    ) -> None:
        """Replace or create *path* in one step; readers see old or new, never half.

        The content is never readable by more than *mode* allows, not even for
        a moment. *owner* and *group* "" keep those of the file replaced, or
        the account's own for a new one.

        Raises:
            StorageFull: no room; the old file is untouched, no leftover stays.
            PermissionRefused: not allowed.
        """

    @abstractmethod
    def make_directory(self, path: str, *, mode: int = 0o755) -> None:
        """Make *path* and its missing parents; existing is quiet."""

    @abstractmethod
    def make_link(self, path: str, target: str) -> None:
        """Make or replace the symbolic link *path* in one step so that it points to *target*."""

    @abstractmethod
    def rename(self, source: str, destination: str) -> None:
        """Rename, replacing *destination* in one step."""

    @abstractmethod
    def remove(self, path: str, *, tree: bool = False) -> None:
        """Remove a file, link or (with *tree*) a directory with all in it. Absent is quiet.

        A link is removed, never followed.
        """

    @abstractmethod
    def info(self, path: str) -> FileInfo | None:
        """Return what is at *path* (links are not followed), None if nothing."""

    @abstractmethod
    def list_directory(self, path: str) -> tuple[str, ...]:
        """Return the names in *path*, sorted. Absent: NotFound."""

    @abstractmethod
    def real_path(self, path: str) -> str:
        """Return *path* with every link followed; NotFound if it dangles."""

    @abstractmethod
    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return existing paths that match a shell pattern (``*``, ``?``, ``[]``), sorted."""


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


class ChallengeResponder(ABC):
    """Where the proof for one kind of challenge is published and removed again."""

    kind: ChallengeKind

    @abstractmethod
    def publish(self, challenges: Sequence[Challenge]) -> str:
        """Make the proofs visible to the CA; return one line for people when they are.

        Raises:
            NotPropagated: they did not become visible in time.
        """

    @abstractmethod
    def withdraw(self, challenges: Sequence[Challenge]) -> None:
        """Remove exactly these proofs. Absent is success."""


class Notifier(Connector):
    """Carries messages to people or programs.

    Attributes:
        takes_addresses: whether each message needs an address of its own.
    """

    takes_addresses: ClassVar[bool] = False

    @abstractmethod
    def send(self, message: Message) -> str:
        """Hand *message* over once and return what the other side answered, in one line.

        Returning means that the other side took it. An error means that it did
        not, or that nobody can know; the same message may then come again.

        Raises:
            Rejected: it will not be taken, however often it is sent.
        """
