"""Which kinds of server there are, and how each is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from certrail.connectors import Host, InstallTarget, MakesKeyFiles
from certrail.errors import InvalidRequest
from certrail.model import Site
from certrail.remote.local import LocalHost
from certrail.servers.apache import ApacheSettings, ApacheTarget
from certrail.servers.caddy import CaddySettings, CaddyTarget
from certrail.servers.command import CommandSettings, CommandTarget
from certrail.servers.dovecot import DovecotSettings, DovecotTarget
from certrail.servers.exim import EximSettings, EximTarget
from certrail.servers.haproxy import HaproxySettings, HaproxyTarget
from certrail.servers.lighttpd import LighttpdSettings, LighttpdTarget
from certrail.servers.mariadb import MariadbSettings, MariadbTarget
from certrail.servers.nginx import NginxSettings, NginxTarget
from certrail.servers.nginx.target import site_id
from certrail.servers.postfix import PostfixSettings, PostfixTarget
from certrail.servers.postgresql import PostgresqlSettings, PostgresqlTarget
from certrail.servers.tomcat import TomcatSettings, TomcatTarget


class _Settings(Protocol):
    """Settings that are read from the ``server`` mapping of an endpoint."""

    @classmethod
    def parse(cls, server: Mapping[str, object]) -> Self:
        """Read the mapping."""
        ...


S = TypeVar("S", bound=_Settings)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the settings of a kind of server are read, and how it is opened with them."""

    parse: Callable[[Mapping[str, object]], object]
    open: Callable[[Host, Mapping[str, object]], InstallTarget]


def _kind_of(settings: type[S], target: Callable[[Host, S], InstallTarget]) -> _Kind:
    return _Kind(settings.parse, lambda host, server: target(host, settings.parse(server)))


_KINDS = {
    "apache": _kind_of(ApacheSettings, ApacheTarget),
    "caddy": _kind_of(CaddySettings, CaddyTarget),
    "command": _kind_of(CommandSettings, CommandTarget),
    "dovecot": _kind_of(DovecotSettings, DovecotTarget),
    "exim": _kind_of(EximSettings, EximTarget),
    "haproxy": _kind_of(HaproxySettings, HaproxyTarget),
    "lighttpd": _kind_of(LighttpdSettings, LighttpdTarget),
    "mariadb": _kind_of(MariadbSettings, MariadbTarget),
    "nginx": _kind_of(NginxSettings, NginxTarget),
    "postfix": _kind_of(PostfixSettings, PostfixTarget),
    "postgresql": _kind_of(PostgresqlSettings, PostgresqlTarget),
    "tomcat": _kind_of(TomcatSettings, TomcatTarget),
}


def kinds() -> tuple[str, ...]:
    """Return the known kinds, sorted."""
    return tuple(sorted(_KINDS))


def check_settings(server: Mapping[str, object]) -> None:
    """Check an endpoint's ``server`` mapping without a host to open.

    Raises:
        InvalidRequest: unknown kind, unknown field, bad value, no site.
    """
    _kind(server).parse(server)
    site_of(server)


def must_keep_keys(server: Mapping[str, object]) -> None:
    """Check that keys of the server that an endpoint's ``server`` mapping means can stay on it.

    Raises:
        InvalidRequest: they cannot, or :func:`check_settings` finds something.
    """
    target = open_target(LocalHost("not asked"), server)
    if not (isinstance(target, MakesKeyFiles) and target.keeps_keys):
        raise InvalidRequest(
            f"a server of the kind {server['kind']} reads certificate and key from one file here, "
            "which is read back, so its key cannot stay on the host",
            remedy="Set `key: {location: store}` in the profile.",
        )


def open_target(host: Host, server: Mapping[str, object]) -> InstallTarget:
    """Return the install target for an endpoint's ``server`` mapping.

    Raises:
        InvalidRequest: unknown kind, unknown field, bad value.
    """
    return _kind(server).open(host, server)


def _kind(server: Mapping[str, object]) -> _Kind:
    kind = str(server.get("kind", ""))
    if kind not in _KINDS:
        raise InvalidRequest(
            f"unknown kind of server {kind!r}" if kind else "the server has no kind",
            remedy=f"Known kinds: {', '.join(kinds())}.",
        )
    return _KINDS[kind]


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
