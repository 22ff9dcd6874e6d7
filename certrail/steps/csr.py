"""CSR generation: on the device where it can, else by the sensor with the key sealed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from certrail.connectors import DeliveryTarget, HoldsKey, InstallTarget, MakesKeyFiles
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
        if work.plan.key_location == "host" and not isinstance(target, HoldsKey):
            record, _ = _on_host(work, record, target, site)
            return Outcome.completed(_detail(work, record, "made on the host, which keeps the key"))
        if isinstance(target, HoldsKey):
            with work.journal.effect("csr.generate", record.key, {"site": site.id}) as effect:
                csr = target.generate_csr(site, _subject(work))
                effect.record({"made": True})
            orders.keep_csr(record, csr, None, plan.key_algorithm)
            where = plan.target.name if plan.target else plan.location
            return Outcome.completed(f"{plan.key_algorithm} key made on {where}, which keeps it")
    with_csr(work, record)
    return Outcome.completed(_detail(work, record, "made and sealed"))


def with_csr(
    work: Work, record: OrderRecord, open_target: OpenAny | None = None
) -> tuple[OrderRecord, Csr]:
    """Return the order's CSR, making key and CSR first if there are none yet.

    Both are stored in one transaction before anybody sees the CSR. A key that is to
    stay on its host is made there, through *open_target*.

    Raises:
        InvalidRequest: the key is to stay on a target that cannot make it.
    """
    if record.csr is not None:
        return record, record.csr
    if work.plan.key_location == "host":
        if open_target is None:
            raise InvalidRequest(
                f"the key of {work.plan.location} is to be made on its target, and there is none",
                remedy="Set `target` of the endpoint, or `key: {location: store}` in the profile.",
            )
        with open_target() as (target, site):
            return _on_host(work, record, target, site)
    algorithm = work.plan.key_algorithm
    key = generate(algorithm)
    csr = build_csr(_subject(work), key)
    return orders.keep_csr(record, csr, key, algorithm), csr


def _on_host(
    work: Work, record: OrderRecord, target: InstallTarget | DeliveryTarget, site: Site
) -> tuple[OrderRecord, Csr]:
    """Make key and CSR on the host; a run that was killed after it gets the same key again."""
    if not (isinstance(target, MakesKeyFiles) and target.keeps_keys):
        where = work.plan.target.name if work.plan.target else work.plan.location
        raise InvalidRequest(
            f"{where} cannot make a key and keep it",
            remedy="Set `key: {location: store}` in the profile, or use a server on a machine.",
        )
    with work.journal.effect("csr.generate", record.key, {"site": site.id}) as effect:
        csr = target.make_csr(site, _subject(work), record.key)
        effect.record({"made": True})
    return orders.keep_csr(record, csr, None, work.plan.key_algorithm), csr


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
