"""Opening the connectors that a plan names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks._base import (
    ConnectorBlock,
    DeliveryBlock,
    DnsBlock,
    HostBlock,
    TargetBlock,
    open_reference,
)
from certrail.configuration.fields import split_address
from certrail.configuration.plan import Plan
from certrail.connectors import ChallengeResponder, DeliveryTarget, InstallTarget
from certrail.delivery.directory import DirectoryDelivery
from certrail.dns.responder import Dns01Responder
from certrail.errors import InvalidRequest
from certrail.model import Site, Workflow
from certrail.remote.http01 import ListeningResponder, WebrootResponder
from certrail.remote.machine import machine_of
from certrail.servers.registry import open_target, site_of
from certrail.store.database import locked


@contextmanager
def responder(plan: Plan) -> Iterator[ChallengeResponder]:
    """Open the place where the plan's challenges are published."""
    wanted = plan.validation
    if wanted is None:
        raise InvalidRequest(f"the profile {plan.profile} has no `validation`")
    if wanted.listen:
        host, port = split_address(wanted.listen)
        yield ListeningResponder(host, port)
    elif wanted.webroot:
        with _host_block(plan).connect() as host_:
            yield WebrootResponder(host_, wanted.webroot)
    else:
        if plan.dns is None:
            raise InvalidRequest(f"the profile {plan.profile} names no DNS connector")
        block = DnsBlock.named(plan.dns.reference)
        with block.connect() as dns:
            yield Dns01Responder(dns, lock=locked, resolver=block.resolver())


@contextmanager
def install_target(plan: Plan) -> Iterator[tuple[InstallTarget, Site]]:
    """Open the target of *plan* and the place on it."""
    if plan.target is None:
        raise InvalidRequest(f"{plan.location} has no target to install on")
    block = ConnectorBlock.named(plan.target.reference)
    if isinstance(block, HostBlock):
        with block.connect() as host:
            target: InstallTarget = open_target(host, plan.server)
            target.lock_name = machine_of(host)
            yield target, site_of(plan.server)
    elif isinstance(block, TargetBlock):
        with block.connect() as target:
            yield target, _site(plan)
    else:
        raise InvalidRequest(
            f"{plan.target.name} is a {block.kind}; nothing can be installed there",
            remedy="Name a host or an install target as the endpoint's `target`.",
        )


@contextmanager
def delivery_target(plan: Plan) -> Iterator[tuple[DeliveryTarget, Site]]:
    """Open the delivery target of *plan* and the place on it."""
    if plan.target is None:
        raise InvalidRequest(f"{plan.location} has no target to deliver to")
    block = ConnectorBlock.named(plan.target.reference)
    if isinstance(block, HostBlock):
        with block.connect() as host:
            directory = DirectoryDelivery(host, open_reference)
            directory.lock_name = machine_of(host)
            yield directory, _site(plan)
    elif isinstance(block, DeliveryBlock):
        with block.connect() as target:
            yield target, _site(plan)
    else:
        raise InvalidRequest(
            f"{plan.target.name} is a {block.kind}; nothing can be delivered there",
            remedy="Name a host or a delivery target as the endpoint's `target`.",
        )


@contextmanager
def any_target(plan: Plan) -> Iterator[tuple[InstallTarget | DeliveryTarget, Site]]:
    """Open the target of *plan*, whether it serves or only stores certificates."""
    opened = delivery_target if plan.workflow is Workflow.DELIVERY else install_target
    with opened(plan) as (target, site):
        yield target, site


def _site(plan: Plan) -> Site:
    """Return the place on an appliance, vault or service: the object named by the endpoint."""
    named = str(plan.server.get("site", ""))
    object_ = named or plan.location.partition("/")[2] or plan.location
    return Site(id=object_, names=plan.names, listens=plan.addresses, settings=plan.server)


def _host_block(plan: Plan) -> HostBlock:
    if plan.target is None:
        raise InvalidRequest(f"{plan.location} has no target whose webroot could be used")
    return HostBlock.named(plan.target.reference)
