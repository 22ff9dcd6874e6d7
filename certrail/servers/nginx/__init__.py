"""nginx: read its configuration as nginx does, change as little of it as possible."""

from __future__ import annotations

from certrail.servers.nginx.settings import NginxSettings
from certrail.servers.nginx.target import NginxTarget
from certrail.servers.plan import Plan

__all__ = ["NginxSettings", "NginxTarget", "Plan"]
