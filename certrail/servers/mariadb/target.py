"""Install certificates on MariaDB."""

from __future__ import annotations

from collections.abc import Sequence

from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers.mariadb.config import Configuration
from certrail.servers.mariadb.control import MariadbControl
from certrail.servers.mariadb.settings import MariadbSettings
from certrail.servers.pair import DatabaseTarget, Found, Line, listen
from certrail.servers.versions import Versions

_SETTINGS = ("ssl_cert", "ssl_key")


class MariadbTarget(DatabaseTarget):
    """One MariaDB on one host."""

    server = "MariaDB"
    test_command = "mariadbd --verbose --help"
    starttls = "mysql"
    settings: MariadbSettings
    control: MariadbControl

    def __init__(self, host: Host, settings: MariadbSettings) -> None:
        super().__init__(host, settings, MariadbControl(host, settings))

    def check(self) -> str:
        count = len(self._read().files)
        return (
            f"{self.control.version()} on {self.host.name}, {self.control.config}: "
            f"{count} option files"
        )

    def listens(self) -> tuple[str, ...]:
        configuration = self._read()
        return (listen(configuration.text("bind_address"), configuration.text("port", "3306")),)

    def find(self) -> Found:
        configuration = self._read()
        value = configuration.settings.get(_SETTINGS[0])
        if configuration.gap is None:
            raise InvalidRequest(
                f"{configuration.root} has no group for the server",
                remedy="Write a line `[mysqld]` into it, then retry.",
            )
        why = ""
        if off := configuration.ssl_off:
            why = f"TLS is switched off at {off.place}"
        elif value is None or not value.text:
            why = "no certificate is named"
        return Found(
            configuration.files,
            value.text if value else "",
            why,
            value.place if value else configuration.gap[0],
            configuration.gap,
        )

    def lines(self, versions: Versions) -> Sequence[Line]:
        configuration = self._read()
        if off := configuration.ssl_off:
            raise InvalidRequest(
                f"{off.place}: TLS is switched off",
                remedy="Remove the line, then retry.",
            )
        paths = (versions.live_chain, versions.live_key)
        return [
            Line(f"{name.replace('_', '-')} = {path}", path, path, configuration.settings.get(name))
            for name, path in zip(_SETTINGS, paths, strict=True)
        ]

    def _read(self) -> Configuration:
        try:
            return self.control.read()
        except NotFound as exc:
            exc.remedy = "Set `config` of the endpoint's server to the path of the option file."
            raise
