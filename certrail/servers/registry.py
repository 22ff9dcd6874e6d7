"""Which kinds of server there are, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from certrail.connectors import Host, InstallTarget
from certrail.errors import InvalidRequest
from certrail.model import Site
from certrail.servers.nginx import NginxSettings, NginxTarget
from certrail.servers.nginx.target import site_id

_KINDS: dict[str, Callable[[Host, Mapping[str, object]], InstallTarget]] = {
    "nginx": lambda host, server: NginxTarget(host, NginxSettings.parse(server)),
}


# What says that an endpoint's settings are well formed, before anything is opened.
_CHECKS: dict[str, Callable[[Mapping[str, object]], object]] = {"nginx": NginxSettings.parse}


def check_settings(server: Mapping[str, object]) -> None:
    """Check an endpoint's ``server`` mapping without a host to open.

    Raises:
        InvalidRequest: unknown kind, unknown field, bad value, no site.
    """
    kind = str(server.get("kind", ""))
    if kind not in _KINDS:
        raise InvalidRequest(
            f"unknown kind of server {kind!r}" if kind else "the server has no kind",
            remedy=f"Known kinds: {', '.join(kinds())}.",
        )
    if kind in _CHECKS:
        _CHECKS[kind](server)
    site_of(server)


def kinds() -> tuple[str, ...]:
    """Return the known kinds, sorted."""
    return tuple(sorted(_KINDS))


def open_target(host: Host, server: Mapping[str, object]) -> InstallTarget:
    """Return the install target for an endpoint's ``server`` mapping.

    Raises:
        InvalidRequest: unknown kind, unknown field, bad value.
    """
    kind = str(server.get("kind", ""))
    if kind not in _KINDS:
        raise InvalidRequest(
            f"unknown kind of server {kind!r}" if kind else "the server has no kind",
            remedy=f"Known kinds: {', '.join(kinds())}.",
        )
    return _KINDS[kind](host, server)


def site_of(server: Mapping[str, object]) -> Site:
    """Return the site that an endpoint's ``server`` mapping means.

    Raises:
        InvalidRequest: it names no site.
    """
    site, listen = str(server.get("site", "")), str(server.get("listen", "") or "")
    if not site:
        raise InvalidRequest(
            "the server names no site",
            remedy="Set `site` of the endpoint's server, for nginx to the server name.",
        )
    return Site(id=site_id(site, listen), names=(site,), settings={"site": site, "listen": listen})
