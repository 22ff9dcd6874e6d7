"""Install certificates on PostgreSQL."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.pair import DatabaseTarget, Found, Line, listen
from certrail.servers.postgresql.config import AUTO, Configuration
from certrail.servers.postgresql.control import PostgresqlControl
from certrail.servers.postgresql.settings import PostgresqlSettings
from certrail.servers.versions import Versions

_CERTIFICATE, _KEY, _SSL = "ssl_cert_file", "ssl_key_file", "ssl"


class PostgresqlTarget(DatabaseTarget):
    """One PostgreSQL on one host."""

    server = "PostgreSQL"
    test_command = "postgres -C ssl_cert_file"
    starttls = "postgres"
    settings: PostgresqlSettings
    control: PostgresqlControl

    def __init__(self, host: Host, settings: PostgresqlSettings) -> None:
        super().__init__(host, settings, PostgresqlControl(host, settings))

    def check(self) -> str:
        tls = "on" if self._read().ssl else "off"
        return f"{self.control.version()} on {self.host.name}, {self.control.config}: ssl is {tls}"

    def listens(self) -> tuple[str, ...]:
        configuration = self._read()
        port = configuration.text("port", "5432")
        names = configuration.text("listen_addresses", "localhost").split(",")
        addresses = [name.strip().replace("localhost", "127.0.0.1") for name in names]
        return tuple(dict.fromkeys(listen(one, port) for one in addresses if one))

    def find(self) -> Found:
        configuration = self._read()
        value = configuration.settings.get(_CERTIFICATE)
        root = self.control.config
        return Found(
            configuration.files,
            configuration.file(_CERTIFICATE, "server.crt"),
            "" if configuration.ssl else "`ssl` is off",
            value.place if value else root,
            (root, len(configuration.files[root])),
        )

    def lines(self, versions: Versions) -> Sequence[Line]:
        configuration = self._read()
        lines = []
        wanted = ((_CERTIFICATE, versions.live_chain), (_KEY, versions.live_key))
        if not configuration.ssl:
            present = configuration.settings.get(_SSL)
            lines.append(Line(f"{_SSL} = on", "on", "on", present))
        for name, path in wanted:
            present = configuration.settings.get(name)
            lines.append(Line(f"{name} = '{path}'", f"'{path}'", path, present))
        for one in lines:
            value = one.present
            if value and posixpath.basename(value.path) == AUTO and value.text != one.meaning:
                name = one.text.partition(" ")[0]
                raise InvalidRequest(
                    f"{value.place}: `{name}` was set by ALTER SYSTEM, in a file that only "
                    "PostgreSQL may write",
                    remedy=f"Run `ALTER SYSTEM RESET {name}` in it, then retry.",
                )
        return lines

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of postgresql.conf."
            raise
