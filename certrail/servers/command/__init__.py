"""Any server that reads its certificate from files."""

from certrail.servers.command.settings import CommandSettings
from certrail.servers.command.target import CommandTarget

__all__ = ["CommandSettings", "CommandTarget"]
