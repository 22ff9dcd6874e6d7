"""What a request would do: everything that can be known before the first write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

from certrail.cli import _prefect, _prefect_blocks
from certrail.cli._specimen import specimen
from certrail.configuration.plan import Plan as RequestPlan
from certrail.connectors import Host, InstallTarget
from certrail.errors import InvalidRequest
from certrail.model import Action, Bundle, Site
from certrail.servers.plan import Plan
from certrail.servers.registry import open_target, site_of
from certrail.steps.places import OpenPlace
from certrail.store import plans


@runtime_checkable
class _Plans(Protocol):
    def plan(self, site: Site, bundle: Bundle) -> Plan: ...


def preview(location: str, action: Action | None) -> dict[str, Any]:
    """Return what a request for *location* would change on its target; nothing is changed.

    The target is reached, its configuration read, tested and edited in memory, for
    a certificate with the names and the kind of key that the request would obtain.

    Raises:
        NotFound, InvalidRequest: the endpoint is unknown, or not configured well enough, or
            its configuration cannot be changed safely.
        ConnectorError: the target cannot be reached.
    """
    _prefect.installation()
    prepared = plans.for_location(location)
    chosen = action or prepared.default_action
    plan = prepared.plan_for(chosen)
    prepared.certificate_for(chosen)
    names = plan.names or (plan.location.rpartition(":")[0],)
    first, *further = changes(plan, names, _open)
    shown = {"location": plan.location, "action": str(chosen), "names": list(names), **first}
    return {**shown, "also_on": further} if further else shown


def changes(plan: RequestPlan, names: Sequence[str], open_place: OpenPlace) -> list[dict[str, Any]]:
    """Return what would change in each place of *plan*, that of the endpoint first.

    Raises:
        InvalidRequest: a place has no target, cannot tell, or cannot be changed safely.
        ConnectorError: a target cannot be reached.
    """
    return [_change(plan.at(number), names, open_place) for number in range(len(plan.also_on) + 1)]


def _change(plan: RequestPlan, names: Sequence[str], open_place: OpenPlace) -> dict[str, Any]:
    if plan.target is None:
        raise InvalidRequest(
            f"{plan.location} has no target to install on", remedy="Set `target` of the endpoint."
        )
    with open_place(plan) as (target, site):
        if not isinstance(target, _Plans) or not plan.server:
            raise InvalidRequest(
                f"what would change on {plan.target.name} cannot be told beforehand",
                remedy="A dry run works for servers on a machine (host-local, host-ssh).",
            )
        change = target.plan(site, specimen(names, plan.key_algorithm))
    return {
        "target": plan.target.name,
        "server": str(plan.server.get("kind", "")),
        "place": change.place,
        "directory": change.directory,
        "summary": change.summary,
        "diff": change.diff(),
    }


@contextmanager
def _open(plan: RequestPlan) -> Iterator[tuple[InstallTarget, Site]]:
    assert plan.target is not None
    with _prefect_blocks.load_block(plan.target.reference).connect() as opened:
        target = open_target(opened, plan.server) if isinstance(opened, Host) else opened
        yield target, site_of(plan.server) if plan.server else Site(plan.location)
