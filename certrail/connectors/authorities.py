"""What we ask of a certificate authority; what only some of them can do is a class of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from certrail.connectors.base import Connector
from certrail.model import (
    Account,
    Authorization,
    Chain,
    Challenge,
    Csr,
    Order,
    OrderKey,
    OrderSpec,
    RenewalInfo,
    RevocationReason,
)
from certrail.wait import Pending


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
