"""Tomcat: the certificate of a TLS host of a connector, PEM or key store."""

from certrail.servers.tomcat.settings import TomcatSettings
from certrail.servers.tomcat.target import TomcatTarget

__all__ = ["TomcatSettings", "TomcatTarget"]
