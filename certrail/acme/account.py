"""The account at an ACME CA: its key, where it is kept, and how it is made or found again."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from acme import messages
from josepy.b64 import b64decode, b64encode

from certrail.acme.connection import Connection
from certrail.acme.payload import as_payload
from certrail.acme.problem import PREFIX
from certrail.acme.signing import Signer, new_account_key, signer_of
from certrail.errors import (
    AuthenticationFailed,
    ConnectorError,
    InvalidRequest,
    UnexpectedReply,
    Unreachable,
)
from certrail.log import effect, plain
from certrail.model import Account
from certrail.private_key import PrivateKeyPem

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_FORGOTTEN = f"{PREFIX}accountDoesNotExist"
_EAB_REFUSALS = frozenset(
    f"{PREFIX}{code}" for code in ("unauthorized", "malformed", "externalAccountRequired")
)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """What has to be kept of an account.

    Attributes:
        url: the account at the CA; "" while only the key exists.
        key: the account key.
        contact: what was last sent as contact, ``mailto:`` included.
        eab_kid: the external account it was bound to, "" for none.
    """

    url: str
    key: PrivateKeyPem
    contact: tuple[str, ...] = ()
    eab_kid: str = ""


class AccountKeeper(Protocol):
    """Where the account of one connector at one directory rests.

    Implementations are safe to use from several threads and processes at once.
    """

    def load(self) -> StoredAccount | None:
        """Return what was saved last, None if there is nothing."""
        ...

    def save(self, account: StoredAccount) -> None:
        """Keep *account* in place of the one before; it is durable on return."""
        ...

    def lock(self, what: str) -> AbstractContextManager[object]:
        """Hold a lock that is exclusive among all threads and processes for this account.

        *what* is ``"account"`` or ``"order"``; the two are independent. Who
        holds "order" may take "account", never the other way round.
        """
        ...


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """Credentials that bind the account to one at the CA (RFC 8555 section 7.3.4)."""

    kid: str
    hmac_key: bytes

    @classmethod
    def parse(cls, kid: str, hmac_key: str) -> ExternalAccount | None:
        """Read what the CA gave out, in either base64 alphabet; None where there is nothing.

        Raises:
            InvalidRequest: only one of the two is there, or the key is not base64.
        """
        if not kid and not hmac_key:
            return None
        if not kid or not hmac_key:
            raise InvalidRequest(
                "eab_kid and eab_hmac_key belong together, and one of them is missing",
                remedy="Give both as the CA issued them, or neither.",
            )
        text = hmac_key.strip().translate(str.maketrans("+/", "-_")).rstrip("=")
        # Four characters are three octets, so one left over is none.
        if not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
            raise InvalidRequest(
                "eab_hmac_key is not base64",
                remedy="Copy the HMAC key exactly as the CA shows it.",
            )
        return cls(kid.strip(), b64decode(text))

    def __repr__(self) -> str:
        return f"ExternalAccount(kid={self.kid!r}, hmac_key=<hidden>)"

    def binding(self, public_key: Any, new_account_url: str) -> dict[str, Any]:
        """Return the signed binding for the newAccount request."""
        bound: dict[str, Any] = messages.ExternalAccountBinding.from_data(
            public_key,
            self.kid,
            b64encode(self.hmac_key).decode(),
            messages.Directory({"newAccount": new_account_url}),
        )
        return bound


def parse_contacts(contact: str | Iterable[str]) -> tuple[str, ...]:
    """Return contacts as the CA wants them, ``mailto:`` included (RFC 8555 section 7.3).

    Args:
        contact: addresses with or without ``mailto:``; one text may hold several,
            separated by commas.

    Raises:
        InvalidRequest: one is not a plain e-mail address.
    """
    given = contact.split(",") if isinstance(contact, str) else contact
    return tuple(_contact(address) for address in given if address.strip())


class Registration:
    """Finds, makes and keeps the account of one connector. Safe to use from many threads."""

    def __init__(
        self,
        connection: Connection,
        keeper: AccountKeeper,
        contact: tuple[str, ...] = (),
        external: ExternalAccount | None = None,
    ) -> None:
        self._connection = connection
        self._keeper = keeper
        self._contact = contact
        self._external = external
        self._signer: Signer | None = None
        self._guard = threading.Lock()

    def signer(self) -> Signer:
        """Return what signs as the account; the account is found or made if need be."""
        if (signer := self._signer) is not None:
            return signer
        stored = self._keeper.load()
        if stored is None or not stored.url:
            self.ensure()
            stored = self._keeper.load()
        if stored is None:  # pragma: no cover - a keeper that does not keep
            raise UnexpectedReply("the account store returned nothing of what it was given")
        return self._use(stored)

    def forget(self) -> None:
        """Read the account from the store again before the next request."""
        self._signer = None

    def look(self) -> Account | None:
        """Return the account as the CA has it, None if there is none. Changes nothing.

        Raises:
            AuthenticationFailed: the account was deactivated or revoked.
        """
        stored = self._keeper.load()
        return self._found(stored) if stored is not None and stored.url else None

    def ensure(self) -> Account:
        """Find the account and bring its contact up to date, or make it.

        Raises:
            AuthenticationFailed: it was deactivated, or the CA wants other
                external account credentials.
        """
        stored = self._keeper.load()
        if stored is not None and self._is_current(stored):
            found = self._found(stored)
            if found is not None and found.url == stored.url:
                self._use(stored)
                return found
        with self._keeper.lock("account"):
            return self._make(self._keeper.load())

    def _make(self, stored: StoredAccount | None) -> Account:
        """Bring the account to what is configured; the caller holds the lock."""
        previous = stored
        if stored is None or (stored.url and stored.eab_kid != self._kid):
            # A binding cannot be changed, so another external account means another account.
            stored = StoredAccount("", new_account_key(), eab_kid=self._kid)
            # Before the CA hears of it: a key that is lost after that is a lost account.
            self._keeper.save(stored)
        elif stored.url and (found := self._found(stored)):
            return self._keep(stored, found)
        try:
            return self._register(stored)
        except ConnectorError as exc:
            # Refused, so the account before is the one we have. Without an answer
            # the new one may exist, and its key is needed to find it.
            if exc.code and previous is not None and previous.key is not stored.key:
                self._keeper.save(previous)
            raise

    def _keep(self, stored: StoredAccount, found: Account) -> Account:
        """Note where the account is now, and tell the CA of a changed contact."""
        current = replace(stored, url=found.url)
        if stored.contact != self._contact:
            self._update_contact(current)
            current = replace(current, contact=self._contact)
        if current != stored:
            self._keeper.save(current)
        self._use(current)
        return replace(found, contact=self._contact)

    def _register(self, stored: StoredAccount) -> Account:
        directory = self._connection.directory()
        signer = signer_of(stored.key)
        fields: dict[str, Any] = {"terms_of_service_agreed": True}
        if self._contact:
            fields["contact"] = self._contact
        if self._external is not None:
            fields["external_account_binding"] = self._external.binding(
                signer.public_key, directory.new_account
            )
        payload = as_payload(messages.NewRegistration(**fields))
        try:
            reply = self._connection.post(directory.new_account, payload, signer, "new account")
        except ConnectorError as exc:
            if exc.code in _EAB_REFUSALS and (self._external or directory.eab_required):
                raise AuthenticationFailed(
                    str(exc),
                    remedy="Set eab_kid and eab_hmac_key of the connector to a pair that the CA "
                    "issued and still accepts; some CAs accept each pair once only.",
                    connector=exc.connector,
                    code=exc.code,
                ) from exc
            if exc.code == f"{PREFIX}serverInternal" and self._external:
                raise Unreachable(
                    str(exc),
                    remedy="The CA failed; retry. OpenBao and Vault fail like this as well when "
                    "eab_hmac_key does not belong to eab_kid.",
                    connector=exc.connector,
                    code=exc.code,
                ) from exc
            raise
        url = reply.location()
        self._must_be_valid(reply.json(), url)
        stored = replace(stored, url=url, contact=self._contact, eab_kid=self._kid)
        self._keeper.save(stored)
        self._use(stored)
        created = reply.status == 201  # 200 is "this key has an account" (section 7.3.1)
        if created:
            effect("acme.account.create", ca=self._connection.label, account=url)
        return Account(url, created=created, contact=self._contact)

    def _found(self, stored: StoredAccount) -> Account | None:
        """Ask the CA for the account of the stored key (RFC 8555 section 7.3.1)."""
        directory = self._connection.directory()
        payload = as_payload(messages.NewRegistration(only_return_existing=True))
        try:
            reply = self._connection.post(
                directory.new_account, payload, signer_of(stored.key), "look for the account"
            )
        except ConnectorError as exc:
            if exc.code == _FORGOTTEN:
                return None
            if exc.code == f"{PREFIX}unauthorized":
                raise self._closed(stored.url, str(exc), exc.code) from exc
            raise
        url = reply.location()
        self._must_be_valid(reply.json(), url)
        return Account(url, created=False, contact=stored.contact)

    def _update_contact(self, stored: StoredAccount) -> None:
        payload = as_payload(messages.UpdateRegistration(contact=self._contact))
        signer = signer_of(stored.key, stored.url)
        reply = self._connection.post(stored.url, payload, signer, "change the contact")
        self._must_be_valid(reply.json(), stored.url)
        effect("acme.account.contact", ca=self._connection.label, account=stored.url)

    def _must_be_valid(self, account: dict[str, Any], url: str) -> None:
        # Some CAs leave the status out; only a bad one counts.
        status = account.get("status", "valid")
        if status != "valid":
            raise self._closed(url, f"its status is {plain(status)[:40]}", "")

    def _closed(self, url: str, why: str, code: str) -> AuthenticationFailed:
        return AuthenticationFailed(
            f"the account {url or 'of this connector'} cannot be used any more: {why}",
            remedy="A closed account stays closed: remove the connector's stored account with "
            "`certrail connector forget-account`, then retry; a new account is made.",
            connector=self._connection.label,
            code=code,
        )

    def _is_current(self, stored: StoredAccount) -> bool:
        return bool(stored.url and stored.contact == self._contact and stored.eab_kid == self._kid)

    def _use(self, stored: StoredAccount) -> Signer:
        with self._guard:
            self._signer = signer = signer_of(stored.key, stored.url)
        return signer

    @property
    def _kid(self) -> str:
        return self._external.kid if self._external else ""


def _contact(address: str) -> str:
    text = address.strip()
    mail = text.removeprefix("mailto:")
    if not mail.isascii() or mail.count("@") != 1 or any(sign in mail for sign in " ,?<>"):
        raise InvalidRequest(
            f"not an e-mail address: {plain(address)}",
            remedy="Give one plain address for each contact, such as ops@example.com.",
        )
    return f"mailto:{mail}"
