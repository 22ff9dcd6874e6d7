"""Caddy with a Caddyfile: the ``tls`` directive of a site."""

from certrail.servers.caddy.settings import CaddySettings
from certrail.servers.caddy.target import CaddyTarget

__all__ = ["CaddySettings", "CaddyTarget"]
