"""What tests need to drive :class:`certrail.acme.ca.AcmeCa` from directory to certificate."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from certrail.acme.account import StoredAccount
from certrail.acme.ca import AcmeCa
from certrail.keys.generate import generate
from certrail.model import (
    AuthorizationStatus,
    Chain,
    Challenge,
    ChallengeKind,
    KeyAlgorithm,
    Order,
    OrderKey,
    OrderSpec,
    OrderStatus,
    SubjectSpec,
)
from certrail.private_key import PrivateKeyPem
from certrail.wait import Pending, until
from certrail.x509.csr import build_csr
from tests.support.pebble import ChallengeServer

T = TypeVar("T")

TICK = timedelta(milliseconds=20)
PATIENCE = timedelta(seconds=30)


class FileKeeper:
    """Keeps one account in a file; locks hold between processes as well."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / "account.json"

    def load(self) -> StoredAccount | None:
        """Return what was saved last."""
        if not self._file.exists():
            return None
        data = json.loads(self._file.read_text())
        key = PrivateKeyPem(data["key"].encode())
        return StoredAccount(data["url"], key, tuple(data["contact"]), data["eab_kid"])

    def save(self, account: StoredAccount) -> None:
        """Replace the file in one step."""
        data = {
            "url": account.url,
            "key": account.key.reveal().decode(),
            "contact": account.contact,
            "eab_kid": account.eab_kid,
        }
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(data))
        new.rename(self._file)

    def forget(self) -> None:
        """Remove the account, as a person would after it was deactivated."""
        self._file.unlink()

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Hold a file lock; every call opens the file anew, so threads exclude each other too."""
        handle = os.open(self._folder / f"{what}.lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


class Publisher:
    """Publishes proofs at a challenge server and remembers what it published."""

    def __init__(self, answers: ChallengeServer, kind: ChallengeKind) -> None:
        self.kind = kind
        self._answers = answers
        self.published: list[Challenge] = []

    def __call__(self, challenge: Challenge) -> None:
        """Make the proof visible to the CA."""
        if self.kind is ChallengeKind.DNS_01:
            self._answers.set_txt(challenge.record_name, challenge.txt_value)
        else:
            self._answers.set_http01(challenge.token, challenge.key_authorization)
        self.published.append(challenge)


def spec(*names: str, key: str = "order-1", profile: str = "", replaces: str = "") -> OrderSpec:
    """Return a specification with defaults for what a test does not care about."""
    return OrderSpec(OrderKey(key), names, profile=profile, replaces=replaces)


def validate(
    ca: AcmeCa, order: Order, publish: Callable[[Challenge], None], kind: ChallengeKind
) -> int:
    """Prove control of every name that is still pending; return how many were.

    Fails with the CA's words if a validation fails.
    """
    answered = 0
    for authorization in ca.authorizations(order):
        if authorization.status is AuthorizationStatus.PENDING:
            challenge = next(each for each in authorization.challenges if each.kind is kind)
            publish(challenge)
            ca.respond(order, challenge)
            answered += 1

    def settled() -> bool | Pending:
        states = ca.authorizations(order)
        for state in states:
            assert not state.problem, f"{state.name}: {state.problem}"
        return all(s.status is AuthorizationStatus.VALID for s in states) or Pending()

    _wait(settled, "the names to be validated")
    return answered


def collect(ca: AcmeCa, order: Order) -> Chain:
    """Poll until the chain is there."""

    def ask() -> Chain | Pending:
        answer = ca.collect(order)
        return Pending() if isinstance(answer, Pending) else answer

    return _wait(ask, "the certificate")


def settle(ca: AcmeCa, order: Order) -> Order:
    """Wait until *order* is pending no more and return it."""

    def ask() -> Order | Pending:
        now = ca.reopen(order)
        return Pending() if now.status is OrderStatus.PENDING else now

    return _wait(ask, "the order to be decided")


def finalize(ca: AcmeCa, order: Order, names: Sequence[str]) -> tuple[Order, PrivateKeyPem]:
    """Wait until the order is ready and hand over a CSR for *names*; return order and key."""
    key = generate(KeyAlgorithm.ECDSA_P256)
    return ca.finalize(settle(ca, order), build_csr(SubjectSpec(tuple(names)), key)), key


def issue(
    ca: AcmeCa,
    names: Sequence[str],
    publish: Callable[[Challenge], None],
    kind: ChallengeKind = ChallengeKind.DNS_01,
    *,
    order: Order | None = None,
    key: str = "order-1",
) -> Chain:
    """Order (unless *order* is given), validate, finalize and collect."""
    order = order or ca.open_order(spec(*names, key=key))
    validate(ca, order, publish, kind)
    order, _ = finalize(ca, order, names)
    return collect(ca, order)


def _wait(ask: Callable[[], T | Pending], what: str) -> T:
    return until(
        ask,
        timeout=PATIENCE,
        interval=TICK,
        slowest=TICK,
        late=lambda: AssertionError(f"waited too long for {what}"),
    )
