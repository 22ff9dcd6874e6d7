"""Requests of an installation that was restored: what the old one did after the backup counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

from certrail import log
from certrail.connectors import CertificateAuthority
from certrail.errors import NotFound
from certrail.model import Chain, OrderStatus, Workflow, subject_names
from certrail.restored import Code, Restored, Served, Verdict, Wanted, judge
from certrail.steps import serving
from certrail.steps.outcome import Outcome, Work
from certrail.store import certificates, orders, requests, restores
from certrail.store.certificates import Certificate
from certrail.store.database import transaction
from certrail.store.orders import OrderRecord
from certrail.tls.probe import probe
from certrail.x509.csr import algorithm_of

USED_UP = "it was finalized before the restore, with a key that is not in the backup"

_LOOK = "restore.look"
_FINALIZE = "order.finalize"
_SETTLED = (OrderStatus.PROCESSING, OrderStatus.VALID)
_NOTHING = Verdict(Code.NOTHING, "no certificate is served that clients accept")


def unless_served(work_of: Callable[[Work], Outcome]) -> Callable[[Work], Outcome]:
    """Skip an obtaining step whose certificate is served already, issued after the backup."""

    @wraps(work_of)
    def step(work: Work) -> Outcome:
        told = _taken(work)
        return Outcome.skipped(told) if told else work_of(work)

    return step


def came_with_backup(work: Work) -> bool:
    """Return whether the old installation may have gone on with the request after the backup."""
    restored = restores.newest()
    return restored is not None and restored.knew(work.request.created_at)


def is_used_up(work: Work, ca: CertificateAuthority, record: OrderRecord) -> bool:
    """Return whether the order yields a certificate only for a key that was lost.

    The old installation finalized it after the backup, which has no key of it.
    """
    if record.order is None or not came_with_backup(work) or _is_finalized(work, record):
        return False
    try:
        return ca.reopen(record.order).status in _SETTLED
    except NotFound:
        return False  # found out, and told, where the order is used next


def is_taken(work: Work, certificate: Certificate) -> bool:
    """Return whether *certificate* was found served after a restore: it has no key and no order."""
    return (
        certificate.key_id is None
        and restores.newest() is not None
        and orders.live(work.request.id) is None
    )


def _taken(work: Work) -> str:
    """Take the certificate that is served, if it is what the request asks for.

    Returns why nothing is ordered, "" where it has to be.
    """
    restored, request = restores.newest(), work.request
    if restored is None or not _may_look(work, restored):
        return ""
    # One look in a run, before its first obtaining step; the others read what it said.
    with work.journal.effect(_LOOK, f"run {request.run_count}") as effect:
        noted = effect.outcome
        if noted is None:
            chain = _served(work)
            verdict = _judged(work, restored, chain) if chain else _NOTHING
            if chain is not None and verdict.code is Code.TAKEN:
                _take(work, chain)
            noted = {"code": verdict.code.value, "message": verdict.message}
            effect.record(noted)
    log.logger.debug("%s request=%s %s", _LOOK, request.id, noted["message"])
    return str(noted["message"]) if noted["code"] == Code.TAKEN else ""


def _may_look(work: Work, restored: Restored) -> bool:
    request = work.request
    if not restored.may_be_served(request.created_at, request.reason.code):
        return False
    # A key on the way to its place has to get there; what serves nothing cannot be seen.
    if work.plan.workflow is Workflow.DELIVERY or not serving.is_reachable(work.plan):
        return False
    record = orders.live(request.id)
    return record is None or not _is_finalized(work, record)


def _is_finalized(work: Work, record: OrderRecord) -> bool:
    """Return whether the backup has the order's key: then its certificate is ours to install."""
    return work.journal.has(_FINALIZE, record.key)


def _served(work: Work) -> Chain | None:
    """Return the one chain that all places serve, None if clients refuse one of them."""
    if any(not place.addresses for place in work.plan.also_on):
        return None  # nobody can see what is served there
    found: set[Chain] = set()
    for number in range(len(work.plan.also_on) + 1):
        report = probe(serving.probe_target(work.plan.at(number), None))
        if not report.ok:
            return None
        found |= {result.presented.chain for result in report.results if result.presented.chain}
    return next(iter(found)) if len({chain.fingerprint for chain in found}) == 1 else None


def _judged(work: Work, restored: Restored, chain: Chain) -> Verdict:
    leaf, previous = chain.leaf, work.request.previous_certificate_id
    known = certificates.by_fingerprint(chain.fingerprint)
    served = Served(
        fingerprint=chain.fingerprint,
        names=frozenset(subject_names(leaf)),
        algorithm=algorithm_of(leaf.public_key()),
        not_before=leaf.not_valid_before_utc,
        is_revoked=known is not None and known.revoked_at is not None,
    )
    wanted = Wanted(
        names=frozenset(work.plan.names),
        algorithm=work.plan.key_algorithm,
        previous=certificates.get(previous).fingerprint if previous else "",
    )
    return judge(restored, served, wanted)


def _take(work: Work, chain: Chain) -> None:
    orders.bury(work.request.id, "what it was for is served already")
    with transaction() as connection:
        certificate_id = certificates.save(connection, chain, ca=work.plan.ca.name)
        requests.keep_certificate(connection, work.request.id, certificate_id)
    log.effect("certificate.taken", request=work.request.id, fingerprint=chain.fingerprint)
