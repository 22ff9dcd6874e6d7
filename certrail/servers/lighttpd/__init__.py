"""lighttpd: the certificate of a socket or of a host condition."""

from certrail.servers.lighttpd.settings import LighttpdSettings
from certrail.servers.lighttpd.target import LighttpdTarget

__all__ = ["LighttpdSettings", "LighttpdTarget"]
