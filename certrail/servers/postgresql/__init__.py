"""PostgreSQL: ``ssl_cert_file`` and ``ssl_key_file``."""

from certrail.servers.postgresql.settings import PostgresqlSettings
from certrail.servers.postgresql.target import PostgresqlTarget

__all__ = ["PostgresqlSettings", "PostgresqlTarget"]
