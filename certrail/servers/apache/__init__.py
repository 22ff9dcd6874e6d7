"""Apache httpd: the virtual host that answers for a name, and as little changed as possible."""

from certrail.servers.apache.settings import ApacheSettings
from certrail.servers.apache.target import ApacheTarget

__all__ = ["ApacheSettings", "ApacheTarget"]
