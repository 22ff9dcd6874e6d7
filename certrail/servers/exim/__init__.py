"""Exim: ``tls_certificate`` and ``tls_privatekey`` of its SMTP server."""

from certrail.servers.exim.settings import EximSettings
from certrail.servers.exim.target import EximTarget

__all__ = ["EximSettings", "EximTarget"]
