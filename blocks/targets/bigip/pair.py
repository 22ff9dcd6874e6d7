"""A BIG-IP and its peers: which one is active, what they are synchronised to."""

from __future__ import annotations

from blocks.targets.bigip.replies import Device, Group, Stats
from blocks.targets.bigip.session import Session
from certrail.errors import Busy, InvalidRequest, NotFound, UnexpectedReply
from certrail.log import plain
from certrail.remote import http

# Of `cm/sync-status`. While a synchronisation is under way it says "Not All Devices Synced".
_PENDING = "Changes Pending"


class Pair:
    """The device group that one device belongs to.

    Args:
        session: with the device.
        group: that changes are synchronised to; "" for none.
        sync_pending: synchronise although changes of somebody else wait for it.
    """

    def __init__(self, session: Session, *, group: str, sync_pending: bool) -> None:
        self._session = session
        self._label = session.label
        self._group = group
        self._is_pending_fine = sync_pending

    def check(self) -> str:
        """Return what is to be told of the synchronisation, "" if nothing.

        Raises:
            NotFound: there is no such group.
        """
        groups = self._session.items("/mgmt/tm/cm/device-group", Group)
        manual = [
            g.fullPath for g in groups if g.type == "sync-failover" and g.autoSync != "enabled"
        ]
        told = ""
        if self._group:
            told = f", synchronised to {self._group} ({plain(self.sync_status()[0])})"
            if not any(g.fullPath in (self._group, f"/Common/{self._group}") for g in groups):
                raise NotFound(
                    f"{self._label}: there is no device group {self._group}",
                    remedy="Correct sync_group; there are: "
                    + plain(", ".join(g.fullPath for g in groups) or "none"),
                    connector=self._label,
                )
        elif manual:
            told = f"; set sync_group, or {plain(manual[0])} will not get changes"
        return told

    def must_be_active(self) -> Device:
        """Return the device itself.

        Raises:
            InvalidRequest: it is not the active one of its pair.
            UnexpectedReply: it is no BIG-IP.
        """
        devices = self._session.items("/mgmt/tm/cm/device", Device)
        own = next((one for one in devices if one.selfDevice == "true"), None)
        if own is None:
            raise UnexpectedReply(f"{self._label}: not a BIG-IP", connector=self._label)
        if own.failoverState != "active":
            raise InvalidRequest(
                f"{self._label}: {plain(own.name)} is {plain(own.failoverState)}, and what is "
                "changed there is overwritten at the next synchronisation",
                remedy="Set the connector's url to the active device of the pair.",
            )
        return own

    def sync_status(self) -> tuple[str, str]:
        """Return the status of the synchronisation, and what the device advises ("" if nothing)."""
        found = http.json_of(self._session.call("GET", "/mgmt/tm/cm/sync-status"), Stats)
        advice = (one for one in found.texts("details") if "ecommended action" in one)
        return next(found.texts("status"), "unknown"), next(advice, "")

    def must_be_synchronised(self) -> None:
        """Check, before the first change, that nobody's changes wait for the group.

        Ours could not be synchronised without theirs: a half-done change would go to
        the peer, or a change made there would be overwritten.

        Raises:
            Busy: somebody has to synchronise first.
        """
        if not self._group or self._is_pending_fine:
            return
        status, advice = self.sync_status()
        if status == _PENDING:
            raise Busy(
                f"{self._label}: somebody else's changes are not synchronised to {self._group} "
                f"yet ({plain(status)})" + (f": {plain(advice).strip(' -')}" if advice else ""),
                remedy="Let them finish and synchronise (Device Management > Overview, or `tmsh "
                f"run cm config-sync to-group {self._group}`), then retry. With sync_pending "
                "theirs are sent along with ours.",
                connector=self._label,
                code=plain(status),
            )

    def save(self) -> None:
        """Save the configuration, and synchronise it to the group if there is one."""
        self._session.call("POST", "/mgmt/tm/sys/config", json={"command": "save"})
        if self._group:
            self._session.call(
                "POST",
                "/mgmt/tm/cm",
                json={"command": "run", "utilCmdArgs": f"config-sync to-group {self._group}"},
            )
