"""Opening the connectors that a plan names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blocks._base import ConnectorBlock, DnsBlock, HostBlock, TargetBlock
from certrail.configuration import Plan, split_address
from certrail.connectors import ChallengeResponder, InstallTarget
from certrail.dns.responder import Dns01Responder
from certrail.errors import InvalidRequest
from certrail.model import Site
from certrail.remote.http01 import ListeningResponder, WebrootResponder
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
    site = site_of(plan.server)
    if isinstance(block, HostBlock):
        with block.connect() as host:
            yield open_target(host, plan.server), site
    elif isinstance(block, TargetBlock):
        with block.connect() as target:
            yield target, site
    else:
        raise InvalidRequest(
            f"{plan.target.name} is a {block.kind}; nothing can be installed there",
            remedy="Name a host or an install target as the endpoint's `target`.",
        )


def _host_block(plan: Plan) -> HostBlock:
    if plan.target is None:
        raise InvalidRequest(f"{plan.location} has no target whose webroot could be used")
    return HostBlock.named(plan.target.reference)
