"""Any CA that speaks ACME (RFC 8555), with profiles and renewal information."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from certrail.acme import payload
from certrail.acme.account import AccountKeeper, ExternalAccount, Registration, parse_contacts
from certrail.acme.ari import certificate_id, read_renewal_info
from certrail.acme.chains import PEM_CHAIN, download
from certrail.acme.connection import connection
from certrail.acme.listing import unfinished
from certrail.acme.order import read_authorization, read_order
from certrail.acme.problem import PREFIX, remedy_for, validation_remedy
from certrail.acme.reply import Reply
from certrail.acme.revocation import revoke
from certrail.connectors import (
    CertificateAuthority,
    ListsOrders,
    OffersRenewalInfo,
    ValidatesDomains,
)
from certrail.errors import (
    AuthenticationFailed,
    CertrailError,
    Conflict,
    ConnectorError,
    InvalidRequest,
    NotFound,
    Rejected,
)
from certrail.log import effect, logger, plain
from certrail.model import (
    Account,
    Authorization,
    AuthorizationStatus,
    Chain,
    Challenge,
    Csr,
    Order,
    OrderSpec,
    OrderStatus,
    RenewalInfo,
    RevocationReason,
)
from certrail.wait import Pending

# What CAs answer when they will not have this predecessor: it has a successor,
# belongs to another account, or is not known. The same codes with another
# cause come back on the second attempt.
_NOT_THIS_PREDECESSOR = frozenset(
    f"{PREFIX}{code}" for code in ("alreadyReplaced", "malformed", "unauthorized", "conflict")
) | {"HTTP 404", "HTTP 409"}
_LIFETIME_REFUSED = frozenset(
    f"{PREFIX}{code}" for code in ("serverInternal", "malformed", "badCSR", "unauthorized")
)
_SETTLED = (OrderStatus.PROCESSING, OrderStatus.VALID)
_LAPSED = (
    AuthorizationStatus.EXPIRED,
    AuthorizationStatus.DEACTIVATED,
    AuthorizationStatus.REVOKED,
)


class AcmeCa(CertificateAuthority, ListsOrders, ValidatesDomains, OffersRenewalInfo):
    """A CA behind an ACME directory. One instance may be used from many threads.

    Orders are known by their URL: every method that takes an :class:`Order`
    works in a process that never saw it before.
    """

    def __init__(
        self,
        directory_url: str,
        *,
        keeper: AccountKeeper,
        contact: str | Iterable[str] = (),
        eab_kid: str = "",
        eab_hmac_key: str = "",
        ca_bundle: str = "",
        preferred_chain: str = "",
        allowed_origins: Iterable[str] = (),
        lifetime: timedelta | None = None,
        label: str = "acme",
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            directory_url: of the ACME directory; https, or http on this machine.
            keeper: where the account rests.
            contact: e-mail addresses, with or without ``mailto:``; one text may hold several,
                separated by commas.
            eab_kid: key id for external account binding, "" for none.
            eab_hmac_key: its HMAC key, base64url or base64.
            ca_bundle: PEM text or path: trust for the directory itself, "" for the system's.
            preferred_chain: common name of the wanted topmost issuer, "" for the default chain.
            allowed_origins: origins beside the directory's that the CA's URLs may have.
            lifetime: how long certificates are to be valid (`notAfter` of the order), None
                to leave that to the CA.
            label: the connector's name, for errors.

        Raises:
            InvalidRequest: one of these cannot be used.
        """
        self._connection = connection(
            directory_url,
            ca_bundle=ca_bundle,
            allowed_origins=tuple(allowed_origins),
            label=label,
        )
        external = ExternalAccount.parse(eab_kid, eab_hmac_key)
        self._registration = Registration(
            self._connection, keeper, parse_contacts(contact), external
        )
        self._keeper = keeper
        self._has_external = external is not None
        self._preferred_chain = preferred_chain
        self._lifetime = lifetime
        self._label = label

    def check(self) -> str:
        """Read the directory, take a nonce, and look at the account if there is one."""
        directory = self._connection.directory()
        self._connection.new_nonce()
        account = self._registration.look()
        if account is None and directory.eab_required and not self._has_external:
            raise AuthenticationFailed(
                "the CA wants accounts bound to an external one",
                remedy="Set eab_kid and eab_hmac_key of the connector to a pair the CA issued.",
                connector=self._label,
                code=f"{PREFIX}externalAccountRequired",
            )
        offers = []
        if directory.profiles:
            offers.append("profiles " + ", ".join(sorted(directory.profiles)))
        if directory.renewal_info:
            offers.append("renewal information")
        return (
            f"ACME directory {plain(self._connection.directory_url)} answers; "
            f"{f'account {plain(account.url)} is valid' if account else 'no account yet'}; "
            f"offers {' and '.join(offers) or 'no extensions'}"
        )

    def ensure_account(self) -> Account:
        return self._registration.ensure()

    def open_order(self, spec: OrderSpec) -> Order:
        """Order certificates for the names in *spec*.

        Where the CA refuses the predecessor named in ``spec.replaces``, the
        order is made without it, and ``Order.replaces`` is "".

        Raises:
            InvalidRequest: the CA does not offer the profile.
            Rejected: the CA will not issue for these names.
        """
        directory = self._connection.directory()
        if spec.profile and spec.profile not in directory.profiles:
            offered = ", ".join(sorted(directory.profiles))
            raise InvalidRequest(
                f"the CA offers no profile {plain(spec.profile)}; "
                + (f"it offers: {offered}" if offered else "it offers no profiles at all"),
                remedy=f"Use one of: {offered}." if offered else "Leave the CA's profile empty.",
            )
        replaces = spec.replaces if directory.renewal_info else ""
        signer = self._registration.signer()
        # Several CAs fail, and one with status 500, when one account orders twice at once.
        with self._keeper.lock("order"):
            try:
                reply = self._new_order(spec, replaces)
            except ConnectorError as exc:
                if not replaces or exc.code not in _NOT_THIS_PREDECESSOR:
                    raise
                logger.warning("%s: ordered without replaces=%s: %s", self._label, replaces, exc)
                replaces = ""
                reply = self._new_order(spec, replaces)
        url = self._connection.check(reply.location())
        order = Order(
            key=spec.key,
            remote_id=url,
            status=OrderStatus.PENDING,
            replaces=replaces,
            data={"names": list(spec.names), "account": signer.account},
        )
        effect("acme.order.open", ca=self._label, order=url, names=",".join(spec.names))
        return read_order(reply, order)

    def unfinished_orders(self, names: Sequence[str]) -> tuple[Order, ...]:
        return unfinished(self._fetch, self._registration.signer().account, names)

    def reopen(self, order: Order) -> Order:
        return read_order(self._fetch(order.remote_id, "order"), order)

    def authorizations(self, order: Order) -> tuple[Authorization, ...]:
        """Return the state of every name, in the order in which the names were ordered.

        Raises:
            NotFound: the CA knows the order no more.
        """
        if "authorizations" not in order.data:
            order = self.reopen(order)
        names = order.data.get("names", ())
        thumbprint = self._registration.signer().thumbprint
        found = [
            read_authorization(
                self._fetch(url, "authorization"), names, thumbprint, self._connection
            )
            for url in order.data["authorizations"]
        ]
        place = {name: number for number, name in enumerate(names)}
        return tuple(sorted(found, key=lambda each: place.get(each.name, len(place))))

    def respond(self, order: Order, challenge: Challenge) -> None:
        try:
            self._post(challenge.url, payload.READY_TO_VALIDATE, f"challenge for {challenge.name}")
        except CertrailError as exc:
            if exc.retryable or not self._is_answered(challenge):
                raise
            return
        effect("acme.challenge.respond", ca=self._label, name=challenge.name, kind=challenge.kind)

    def finalize(self, order: Order, csr: Csr) -> Order:
        """Hand over the CSR; an order that has one already is returned as it stands.

        Raises:
            Conflict: not every name is validated.
            Rejected: the CA refuses the CSR, or has given the order up.
            NotFound: the CA knows the order no more.
        """
        if "finalize" not in order.data:
            order = self.reopen(order)
        if order.status in _SETTLED:
            return self.reopen(order)
        try:
            with self._with_lifetime():
                reply = self._post(order.data["finalize"], payload.finalize(csr.parsed), "finalize")
        except CertrailError as exc:
            if exc.retryable:
                raise
            # What an order that was finalized before answers differs from CA to CA.
            now = self.reopen(order)
            if now.status in _SETTLED:
                return now
            if now.status is OrderStatus.INVALID:
                raise self._given_up(now) from exc
            raise
        effect("acme.order.finalize", ca=self._label, order=order.remote_id)
        return read_order(reply, order)

    def collect(self, order: Order) -> Chain | Pending:
        if order.status is not OrderStatus.VALID or not order.data.get("certificate"):
            reply = self._fetch(order.remote_id, "order")
            order = read_order(reply, order)
            if order.status is OrderStatus.INVALID:
                raise self._given_up(order)
            if order.status is not OrderStatus.VALID or not order.data.get("certificate"):
                return Pending(reply.retry_after)
        return download(
            lambda url: self._post(url, payload.POST_AS_GET, "download", accept=PEM_CHAIN),
            order.data["certificate"],
            self._preferred_chain,
        )

    def revoke(self, chain: Chain, reason: RevocationReason) -> None:
        """See :func:`certrail.acme.revocation.revoke`."""
        url = self._connection.directory().revoke_cert
        if not url:
            raise InvalidRequest(
                "the CA offers no revocation by ACME", remedy="Revoke it in the CA's own console."
            )
        revoke(lambda body: self._post(url, body, "revoke"), chain, reason, self._label)

    def renewal_info(self, chain: Chain) -> RenewalInfo | None:
        """Return when the CA wants the certificate renewed.

        None where the CA offers no renewal information, knows nothing of this
        certificate, or the certificate has expired (RFC 9773 section 4.3).

        Raises:
            UnexpectedReply: the CA's window is none.
        """
        url, leaf = self._connection.directory().renewal_info, chain.leaf
        identifier = certificate_id(leaf)
        if not url or not identifier or leaf.not_valid_after_utc <= datetime.now(UTC):
            return None
        try:
            reply = self._connection.get(f"{url.rstrip('/')}/{identifier}", "renewal information")
        except NotFound:
            return None
        return read_renewal_info(reply.json(), reply.retry_after)

    def replaces_id(self, chain: Chain) -> str:
        return certificate_id(chain.leaf)

    def _new_order(self, spec: OrderSpec, replaces: str) -> Reply:
        ips = frozenset(name for name in spec.names if _is_ip(name))
        until = datetime.now(UTC) + self._lifetime if self._lifetime else None
        body = payload.new_order(spec.names, ips, spec.profile, replaces, until)
        with self._with_lifetime():
            return self._post(self._connection.directory().new_order, body, "new order")

    @contextmanager
    def _with_lifetime(self) -> Iterator[None]:
        """Let an error tell that it may come from the lifetime that was asked for.

        CAs say so badly: step-ca and Caddy with a status of 500, and only once the order
        is finalized.
        """
        try:
            yield
        except ConnectorError as exc:
            if self._lifetime and exc.code in _LIFETIME_REFUSED:
                hours = self._lifetime.total_seconds() / 3600
                exc.remedy = (
                    f"The order asks for {hours:g} hours (`lifetime_hours` of the connector): if "
                    "the CA takes no such wish, or not one as long, change it, cancel the "
                    f"request and start another. {exc.remedy}"
                )
            raise

    def _given_up(self, order: Order) -> Rejected:
        """Return the error for an invalid order, in the CA's own words."""
        words, lapsed, code = [], [], ""
        try:
            for authorization in self.authorizations(order):
                if authorization.problem:
                    words.append(f"{authorization.name}: {authorization.problem}")
                    code = code or authorization.problem_code
                elif has_lapsed(authorization, datetime.now(UTC)):
                    lapsed.append(f"the validation of {authorization.name} has lapsed")
        except ConnectorError as exc:
            logger.warning("%s: why the order failed cannot be read: %s", self._label, exc)
        remedy = validation_remedy(code) if words else remedy_for(order.data["problem_code"])
        if not words and lapsed:
            remedy = "Retry: a new order is made, and the names are validated again."
        if not words:
            words = [*([order.data["problem"]] if order.data["problem"] else []), *lapsed]
        return Rejected(
            f"the CA gave up on the order: {'; '.join(words) or 'it does not say why'}",
            remedy=remedy,
            connector=self._label,
            code=code or order.data["problem_code"],
        )

    def _is_answered(self, challenge: Challenge) -> bool:
        """Return whether the CA has begun with *challenge*, or is done with its name."""
        body = self._fetch(challenge.authorization, "authorization").json()
        if body.get("status") != "pending":
            return True
        return any(
            item.get("url") == challenge.url and item.get("status") != "pending"
            for item in body.get("challenges", ())
        )

    def _fetch(self, url: str, doing: str) -> Reply:
        """Ask for an object of the CA's; NotFound if it knows it no more."""
        try:
            return self._post(url, payload.POST_AS_GET, doing)
        except (Rejected, Conflict) as exc:
            # An empty request has nothing in it that could be malformed, nor
            # unready: so some CAs (Caddy, OpenBao; acme2certifier) say that
            # there is no such object.
            if exc.code not in (f"{PREFIX}malformed", f"{PREFIX}orderNotReady"):
                raise
            raise NotFound(
                f"the CA knows no such {doing} any more: {exc}",
                remedy="Start the request anew: a new order is made.",
                connector=self._label,
                code=exc.code,
            ) from exc

    def _post(self, url: str, body: bytes, doing: str, *, accept: str = "") -> Reply:
        signer = self._registration.signer()
        try:
            return self._connection.post(url, body, signer, doing, accept=accept)
        except ConnectorError as exc:
            if exc.code == f"{PREFIX}accountDoesNotExist":
                self._registration.forget()
            raise


def has_lapsed(authorization: Authorization, now: datetime) -> bool:
    """Return whether a name that was validated is so no more (RFC 8555 section 7.1.6)."""
    if authorization.status is AuthorizationStatus.VALID:
        # Pebble lets such an order be invalid, and the authorization valid.
        return authorization.expires is not None and authorization.expires <= now
    return authorization.status in _LAPSED


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
