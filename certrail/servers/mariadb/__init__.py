"""MariaDB: ``ssl-cert`` and ``ssl-key`` of the server's groups."""

from certrail.servers.mariadb.settings import MariadbSettings
from certrail.servers.mariadb.target import MariadbTarget

__all__ = ["MariadbSettings", "MariadbTarget"]
