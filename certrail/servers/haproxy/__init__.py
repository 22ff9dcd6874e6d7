"""HAProxy: find the ``bind`` line that serves a name, change as little of it as possible."""

from __future__ import annotations

from certrail.servers.haproxy.settings import HaproxySettings
from certrail.servers.haproxy.target import HaproxyTarget

__all__ = ["HaproxySettings", "HaproxyTarget"]
