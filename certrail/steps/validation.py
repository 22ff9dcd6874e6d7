"""Domain validated: open the order, publish, respond, wait, clean up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import uuid4

from certrail import log
from certrail.configuration.plan import Plan
from certrail.connectors import CertificateAuthority, ChallengeResponder, ValidatesDomains
from certrail.errors import (
    CertrailError,
    DomainNotValidated,
    InvalidRequest,
    NotFound,
    Rejected,
    Throttled,
)
from certrail.journal import Effect
from certrail.model import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeKind,
    Order,
    OrderStatus,
)
from certrail.steps.ordering import open_order
from certrail.steps.outcome import Outcome, Work, day
from certrail.store import orders
from certrail.wait import Pending, until
from certrail.words import counted

_FIRST_POLL = timedelta(milliseconds=100)
_SLOWEST_POLL = timedelta(seconds=5)
_PUBLISH = "challenge.publish"
_RESPOND = "challenge.respond"
_PLACE = {"validation", "dns", "target"}

OpenResponder = Callable[[Plan], AbstractContextManager[ChallengeResponder]]
"""Opens the place where the challenges of a plan are published."""


def validate(work: Work, ca: CertificateAuthority, responder: OpenResponder) -> Outcome:
    """Return once the CA accepts every name of the order, or needs no proof at all.

    What was published is withdrawn whatever happens, also what an earlier run
    left behind.

    Raises:
        DomainNotValidated: the CA looked and was not convinced; the order is dead.
        InvalidRequest: the profile offers no way that the CA accepts.
    """
    if work.request.run_count > 1:
        clean_up(work, responder)
    _, order = open_order(work, ca)
    if not isinstance(ca, ValidatesDomains):
        return Outcome.skipped(f"{work.plan.ca.name} issues without domain validation")
    order = _current(work, ca, order)
    authorizations = ca.authorizations(order)
    # Once the CA has the CSR, what became of the authorizations is of no matter. An
    # order can be ready with some still open, where domains are proven beside orders.
    is_over = order.status in (OrderStatus.PROCESSING, OrderStatus.VALID)
    pending = [a for a in authorizations if not is_over and _is_open(a)]
    is_open = order.status is OrderStatus.PENDING
    if is_open and (failed := [a for a in authorizations if not _is_open(a) and not _is_valid(a)]):
        raise _refusal(work, failed)
    if not pending:
        earlier = {intent["authorization"] for intent in work.journal.intents(_RESPOND)}
        if proven := [a for a in authorizations if a.url in earlier]:
            return Outcome.completed(_detail(work.plan, proven, authorizations))
        return Outcome.skipped(_nothing_to_do(work.plan, authorizations))
    chosen = choose(work.plan, pending)
    published = {
        "challenges": [asdict(challenge) for challenge in chosen],
        "place": work.plan.model_dump(mode="json", include=_PLACE),
    }
    # The row stays open until the proofs are withdrawn; each try has its own.
    key = f"{order.key}:{uuid4().hex[:12]}"
    with responder(work.plan) as place, work.journal.effect(_PUBLISH, key, published) as effect:
        try:
            log.effect(_PUBLISH, request=work.request.id, where=place.publish(chosen))
            _prove(work, ca, order, chosen)
        finally:
            _withdraw(effect, place, chosen)
    return Outcome.completed(_detail(work.plan, pending, authorizations))


def choose(plan: Plan, pending: Sequence[Authorization]) -> list[Challenge]:
    """Pick one challenge for each pending name by the profile's method.

    Raises:
        InvalidRequest: there is no method, or the CA does not offer it for a name.
    """
    if plan.validation is None:
        names = ", ".join(a.name for a in pending)
        raise InvalidRequest(
            f"{plan.ca.name} wants proof of control of {names}, but the profile "
            f"{plan.profile} has no `validation`",
            remedy="Give the profile a validation method (dns-01 or http-01).",
        )
    kind = ChallengeKind(plan.validation.method)
    chosen = []
    for authorization in pending:
        offered = {challenge.kind: challenge for challenge in authorization.challenges}
        if kind not in offered:
            ways = ", ".join(sorted(offered)) or "nothing that Certrail speaks"
            raise InvalidRequest(
                f"{plan.ca.name} does not offer {kind} for {authorization.name}; it offers {ways}",
                remedy="Use dns-01 for wildcards and http-01 for IP addresses.",
            )
        chosen.append(offered[kind])
    return chosen


def clean_up(work: Work, responder: OpenResponder) -> None:
    """Withdraw what an earlier run published and did not withdraw."""
    for key, intent in work.journal.unfinished(_PUBLISH):
        challenges = [_challenge(data) for data in intent["challenges"]]
        # Where it was published then, which may not be where it would be now.
        plan = Plan.model_validate({**work.plan.model_dump(), **intent.get("place", {})})
        try:
            with responder(plan) as place, work.journal.effect(_PUBLISH, key) as effect:
                _withdraw(effect, place, challenges)
        except CertrailError as exc:
            log.logger.warning("challenge.withdraw failed, will be tried again: %s", exc)


def _withdraw(effect: Effect, place: ChallengeResponder, challenges: list[Challenge]) -> None:
    try:
        place.withdraw(challenges)
    except CertrailError as exc:
        # Left for the next run or the reconcile flow, which find the open row:
        # it must not hide why the step failed.
        log.logger.warning("challenge.withdraw failed, will be tried again: %s", exc)
    else:
        effect.record({"withdrawn": len(challenges)})


def _prove(work: Work, ca: ValidatesDomains, order: Order, chosen: list[Challenge]) -> None:
    for challenge in chosen:
        noted = {"authorization": challenge.authorization}
        with work.journal.effect(_RESPOND, challenge.url, noted) as effect:
            if effect.outcome is None:
                ca.respond(order, challenge)
                effect.record({"name": challenge.name})

    wanted = {challenge.authorization for challenge in chosen}

    def ask() -> bool | Pending:
        present = [a for a in ca.authorizations(order) if a.url in wanted]
        if failed := [a for a in present if not _is_open(a) and not _is_valid(a)]:
            raise _refusal(work, failed)
        if all(_is_valid(a) for a in present):
            return True
        waits = [a.retry_after for a in present if a.retry_after and not _is_valid(a)]
        return Pending(min(waits, default=None))

    assert work.plan.validation is not None
    limit = timedelta(seconds=work.plan.validation.timeout_seconds)
    until(
        ask,
        timeout=limit,
        interval=_FIRST_POLL,
        slowest=_SLOWEST_POLL,
        late=lambda: DomainNotValidated(
            f"{work.plan.ca.name} did not decide within {limit.total_seconds():.0f} s",
            remedy="Retry: the same order goes on. If it happens again, ask the CA.",
        ),
    )


def _current(work: Work, ca: CertificateAuthority, order: Order) -> Order:
    """Return the order as the CA has it; one that is gone or invalid is buried."""
    if order.status is OrderStatus.PENDING and work.request.run_count == 1:
        return order
    try:
        order = ca.reopen(order)
    except NotFound as exc:
        orders.bury(work.request.id, str(exc))
        raise NotFound(
            f"{work.plan.ca.name} no longer knows the order ({exc})",
            remedy="Retry: a new order is made, since the old one can yield no certificate.",
        ) from exc
    if order.status is OrderStatus.INVALID and isinstance(ca, ValidatesDomains):
        raise _refusal(work, [a for a in ca.authorizations(order) if not _is_valid(a)])
    return order


def _is_open(authorization: Authorization) -> bool:
    # Some CAs leave a failed authorization pending and only set the error on
    # the challenge; waiting for "not pending" would then never end.
    return authorization.status is AuthorizationStatus.PENDING and not authorization.problem


def _is_valid(authorization: Authorization) -> bool:
    return authorization.status is AuthorizationStatus.VALID


def _refusal(work: Work, failed: Sequence[Authorization]) -> CertrailError:
    words = "; ".join(f"{a.name}: {a.problem or a.status}" for a in failed) or "order invalid"
    orders.bury(work.request.id, words)
    if any(a.problem_code.endswith(":rateLimited") for a in failed):
        return Throttled(f"{work.plan.ca.name}: {words}", code="rateLimited")
    method = work.plan.validation.method if work.plan.validation else "validation"
    if any(a.problem_code.endswith(":caa") for a in failed):
        return Rejected(
            f"{work.plan.ca.name}: {words}",
            code="caa",
            remedy="Allow this CA in the domain's CAA records (RFC 8659), then retry.",
        )
    where = (
        "that the _acme-challenge records are answered by the public name servers"
        if method == "dns-01"
        else "that port 80 of each name reaches the server that publishes the challenge"
    )
    return DomainNotValidated(
        f"{work.plan.ca.name} refused the proof: {words}",
        remedy=f"Check {where}, then retry: a new order is made, since this one is used up.",
    )


def _nothing_to_do(plan: Plan, authorizations: Sequence[Authorization]) -> str:
    still = [a for a in authorizations if a.expires]
    if not still:
        return f"{plan.ca.name} asks for no proof of control"
    ends = min(a.expires for a in still if a.expires)
    return f"{', '.join(a.name for a in authorizations)} still valid until {day(ends)}"


def _detail(
    plan: Plan, proven: Sequence[Authorization], authorizations: Sequence[Authorization]
) -> str:
    assert plan.validation is not None
    through = {
        "dns-01": plan.dns.name if plan.dns else "",
        "http-01": plan.validation.webroot or plan.validation.listen or "",
    }[plan.validation.method]
    count = counted(len(proven), "name")
    text = f"{count} by {plan.validation.method} through {through}"
    for other in authorizations:
        if other.url not in {a.url for a in proven}:
            until_when = f" until {day(other.expires)}" if other.expires else ""
            text += f"; {other.name} still valid{until_when}, skipped"
    return text


def _challenge(data: dict[str, Any]) -> Challenge:
    return Challenge(**{**data, "kind": ChallengeKind(data["kind"])})
