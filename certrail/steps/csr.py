"""CSR generation: on the device where it can, else by the sensor with the key sealed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from certrail.connectors import DeliveryTarget, HoldsKey, InstallTarget
from certrail.errors import CertrailError, InvalidRequest, NotFound
from certrail.keys.generate import generate
from certrail.log import logger
from certrail.model import Csr, Site, SubjectSpec
from certrail.steps.outcome import Outcome, Work
from certrail.store import orders
from certrail.store.orders import OrderRecord
from certrail.x509.csr import build_csr

OpenAny = Callable[[], AbstractContextManager[tuple[InstallTarget | DeliveryTarget, Site]]]


def generate_csr(work: Work, open_target: OpenAny) -> Outcome:
    """Return once key and CSR of the request are on record.

    Asks the target first whether it can take such a key and has such a place, so
    that a certificate nobody can install is never ordered.

    Raises:
        InvalidRequest: the target does not take this key algorithm or name.
        NotFound: the place on it does not exist.
    """
    plan = work.plan
    record = orders.begin(work.request.id, plan.ca.name, plan.names, plan.key_algorithm)
    if record.csr is not None:
        return Outcome.completed(_detail(work, record, "kept from the run before"))
    with open_target() as (target, site):
        _must_take(work, target)
        _must_have(target, site)
        if isinstance(target, HoldsKey):
            with work.journal.effect("csr.generate", record.key, {"site": site.id}) as effect:
                csr = target.generate_csr(site, _subject(work))
                effect.record({"made": True})
            orders.keep_csr(record, csr, None, plan.key_algorithm)
            where = plan.target.name if plan.target else plan.location
            return Outcome.completed(f"{plan.key_algorithm} key made on {where}, which keeps it")
    with_csr(work, record)
    return Outcome.completed(_detail(work, record, "made and sealed"))


def with_csr(work: Work, record: OrderRecord) -> tuple[OrderRecord, Csr]:
    """Return the order's CSR, making key and CSR first if there are none yet.

    Both are stored in one transaction before anybody sees the CSR.
    """
    if record.csr is not None:
        return record, record.csr
    algorithm = work.plan.key_algorithm
    key = generate(algorithm)
    csr = build_csr(_subject(work), key)
    return orders.keep_csr(record, csr, key, algorithm), csr


def _subject(work: Work) -> SubjectSpec:
    return SubjectSpec(names=work.plan.names, algorithm=work.plan.key_algorithm)


def _must_take(work: Work, target: InstallTarget | DeliveryTarget) -> None:
    traits, plan = target.traits, work.plan
    if plan.key_algorithm not in traits.key_algorithms:
        takes = ", ".join(sorted(traits.key_algorithms))
        raise InvalidRequest(
            f"{plan.location} takes no {plan.key_algorithm} keys; it takes {takes}",
            remedy=f"Set `key.algorithm` of the profile {plan.profile} to one of these.",
        )


def _must_have(target: InstallTarget | DeliveryTarget, site: Site) -> None:
    """Look at the place once: what is wrong with its name or settings is told before an order.

    A target that cannot be reached just now is no reason to wait with the order.
    """
    try:
        if isinstance(target, InstallTarget):
            target.serving(site)
        else:
            target.delivered(site)
    except (InvalidRequest, NotFound):
        raise
    except CertrailError as exc:
        logger.info("csr.look at %s: %s", site.id, exc)


def _detail(work: Work, record: OrderRecord, how: str) -> str:
    names = work.plan.names
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{work.plan.key_algorithm} key and CSR for {names[0]}{more} {how}"
