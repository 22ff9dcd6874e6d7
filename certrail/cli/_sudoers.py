"""The lines of sudoers that a machine's account needs for the endpoints on it."""

from __future__ import annotations

from certrail.cli import _adoption, _prefect_blocks
from certrail.connectors import Host
from certrail.errors import InvalidRequest, NotFound
from certrail.servers import sudoers
from certrail.store import inventory


def lines(name: str, account: str) -> list[str]:
    """Return the lines for the account of the connector *name*; *account* instead, if given.

    Raises:
        NotFound: there is no such connector.
        InvalidRequest: it is no machine, has no endpoints, or a server on it needs more.
        ConnectorError: the machine has to be asked, and cannot be reached.
    """
    row = _adoption.known().rows.get(name)
    if row is None:
        raise NotFound(f"there is no connector {name}", remedy="certrail connector list")
    block = _prefect_blocks.load_block(row.reference)
    wanted = account or str(getattr(block, "username", ""))
    if not wanted:
        raise InvalidRequest(
            f"the connector {name} does not say which account acts there",
            remedy="Give it with --account: the one that the agent runs under.",
        )
    with block.connect() as opened:
        if not isinstance(opened, Host):
            raise InvalidRequest(f"{name} is no machine, so it has no sudo")
        servers = inventory.servers_on(name)
        needed = [one for _, server in servers for one in sudoers.commands(server, opened)]
    if not needed:
        raise InvalidRequest(
            f"no endpoint on {name} has a server that needs anything as root",
            remedy="Add the endpoints first: `certrail endpoint scan --target`.",
        )
    return sudoers.lines(wanted, needed)
