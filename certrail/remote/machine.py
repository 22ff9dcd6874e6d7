"""Which machine a host is, however it is reached."""

from __future__ import annotations

from certrail.connectors import Host
from certrail.errors import CertrailError

_FILE = "/etc/machine-id"
_LONGEST = 64


def machine_of(host: Host) -> str:
    """Return a text that is the same for every connector that reaches the same machine.

    Two names, addresses or accounts of one machine change the same files, so
    their changes have to wait for each other. It is the machine's own id
    (machine-id(5)), or the connector's name where it has none. Machines copied
    with their id share it, and only wait for each other more than they need to.
    """
    try:
        text = host.read_file(_FILE, limit=_LONGEST).decode("ascii", "ignore").strip()
    except CertrailError:
        text = ""
    return f"machine:{text}" if text else f"host:{host.name}"
