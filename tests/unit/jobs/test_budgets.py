"""Budgets: whose limits a job draws on, and how long it takes because of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certrail.configuration.plan import ConnectorRef, Plan
from certrail.configuration.profile import Validation
from certrail.jobs.budgets import Limit, Wave, expected, names, registered_domain, shares
from certrail.model import Workflow


def plan(name: str, *, public: bool = True, ca: str = "le", target: str | None = "web01") -> Plan:
    return Plan(
        location=f"{name}:443",
        names=(name,),
        addresses=(),
        sni=name,
        workflow=Workflow.WEB_SERVER,
        profile="p",
        ca=ConnectorRef(name=ca, slug="ca-acme"),
        target=ConnectorRef(name=target, slug="host-ssh") if target else None,
        validation=Validation(method="http-01", webroot="/var/www") if public else None,
    )


@pytest.mark.parametrize(
    ("name", "domain"),
    [
        ("www.example.org", "example.org"),
        ("a.b.c.example.co.uk", "example.co.uk"),
        ("*.shop.example.com.au", "example.com.au"),
        ("EXAMPLE.ORG", "example.org"),
        ("host.example.test", "example.test"),
        ("user.github.io", "user.github.io"),
        ("co.uk", ""),
        ("192.0.2.1", ""),
        ("2001:db8::1", ""),
    ],
)
def test_the_registered_domain_is_that_of_the_public_suffix_list(name: str, domain: str) -> None:
    """CAs limit by it; two labels are not enough to find it."""
    assert registered_domain(name) == domain


def test_a_request_draws_on_ca_domain_and_device() -> None:
    """Each of them has a limit of its own."""
    assert names(plan("www.example.co.uk")) == ("ca:le", "domain:example.co.uk", "device:web01")


def test_a_private_ca_has_no_domain_budget() -> None:
    """Nobody is asked for a proof, so nobody counts."""
    assert names(plan("www.example.org", public=False)) == ("ca:le", "device:web01")


def test_small_domains_are_left_out_unless_somebody_set_a_limit() -> None:
    """Thousands of limits that never bind would only cost calls."""
    plans = [plan(f"{n}.big.org") for n in range(11)] + [plan("www.small.org")]

    found = {share.name: share for share in shares(plans, {})}
    assert set(found) == {"ca:le", "device:web01", "domain:big.org"}

    found = {share.name: share for share in shares(plans, {"domain:small.org": Limit(1)})}
    assert found["domain:small.org"].is_set
    assert found["domain:small.org"].endpoints == 1


@pytest.mark.parametrize(
    ("waves", "limit", "concurrency", "seconds"),
    [
        ((100,), Limit(1000), 10, 102.0),  # concurrency holds it up
        ((100,), Limit(5), 10, 200.0),  # the limit does
        ((1, 50), Limit(1000), 100, 24.0),  # a wave takes as long as one endpoint at the least
        ((6500,), Limit(10000), 1000, 1002.0),  # what the Prefect server carries
        ((100,), Limit(10, per_second=0.5), 100, 180.0),  # a rate: ten at once, then two seconds
        ((100,), Limit(1, active=False), 10, 102.0),  # switched off, it holds nobody up
        ((), Limit(1), 1, 0.0),
    ],
)
def test_the_expected_duration_is_that_of_what_holds_it_up(
    waves: tuple[int, ...], limit: Limit, concurrency: int, seconds: float
) -> None:
    """The finish that a dry run tells decides whether the job is started tonight."""
    plans = [plan("www.example.org", public=False, target=None)] * sum(waves)
    budget = shares(plans, {"ca:le": limit})

    found = expected(
        [Wave(size) for size in waves],
        budget,
        each=timedelta(seconds=10),
        concurrency=concurrency,
    )

    assert found == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("waves", "pauses", "seconds"),
    [
        pytest.param([Wave(20, {"ca:le": 20})], {}, 22, id="none"),
        pytest.param([Wave(20, {"ca:le": 20})], {"ca:le": 60}, 82, id="everything waits"),
        pytest.param([Wave(20, {"ca:le": 5})], {"ca:le": 60}, 72, id="a few wait"),
        pytest.param([Wave(20, {"ca:le": 5})], {"ca:le": 5}, 22, id="it goes on before it matters"),
        pytest.param([Wave(20)], {"ca:le": 60}, 22, id="of another job"),
        pytest.param([Wave(20, {"ca:le": 20})], {"ca:le": -5}, 22, id="it has gone on by then"),
        pytest.param(
            [Wave(1, {"ca:le": 1}), Wave(20)], {"ca:le": 60}, 94, id="a canary holds up the rest"
        ),
        pytest.param(
            [Wave(20), Wave(5, {"ca:le": 5})], {"ca:le": 15}, 34, id="over by the second wave"
        ),
    ],
)
def test_a_budget_that_pauses_holds_up_what_draws_on_it(
    waves: list[Wave], pauses: dict[str, int], seconds: float
) -> None:
    """A job over a CA that throttles is over later, and that is told before it is started."""
    found = expected(
        waves,
        [],
        each=timedelta(seconds=10),
        concurrency=10,
        pauses={name: timedelta(seconds=wait) for name, wait in pauses.items()},
    )

    assert found == timedelta(seconds=seconds)


def test_a_limit_counts_from_the_end_of_the_pause() -> None:
    """Its places are free then, not before."""
    plans = [plan("www.example.org", public=False, target=None)] * 100
    budget = shares(plans, {"ca:le": Limit(5)})
    waves = [Wave(100, {"ca:le": 100})]

    found = expected(
        waves,
        budget,
        each=timedelta(seconds=10),
        concurrency=100,
        pauses={"ca:le": timedelta(seconds=60)},
    )

    assert found == timedelta(seconds=260)
