"""HAProxy through its Runtime API."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pydantic import Field

from blocks._base import TargetBlock
from blocks._target import opened_host
from blocks.targets.haproxy.runtime_api import RuntimeApi
from blocks.targets.haproxy.target import HaproxyRuntimeTarget
from certrail.connectors import InstallTarget
from certrail.remote.machine import machine_of

__all__ = ["HaproxyRuntime", "HaproxyRuntimeTarget", "RuntimeApi"]


class HaproxyRuntime(TargetBlock):
    """Replace certificates in a running HAProxy through its stats socket.

    The site is the certificate's file as HAProxy names it (``show ssl cert``). A file
    that is not there yet is added to the list that `crt_list` of the endpoint's server
    names.
    HAProxy changes its memory only and gives no private key out, so the file is
    written too, through a host connector: without it a restart would bring the
    old certificate back, and a failed installation could not be undone.
    """

    _block_type_slug = "target-haproxy"
    _block_type_name = "Certrail target: HAProxy Runtime API"

    socket: str = Field(
        description="The stats socket (`level admin`) as this worker reaches it: "
        "/run/haproxy/admin.sock, or host:port for one on TCP."
    )
    host: str = Field(
        description="Host connector (host-ssh/lb1, host-local/here) of the machine where "
        "HAProxy reads the certificate files."
    )
    allow_cleartext: bool = Field(
        default=False,
        description="Send keys to a TCP socket on another machine although HAProxy offers "
        "no encryption there.",
    )
    timeout: int = Field(default=10, ge=1, le=120, description="Seconds a command may take.")

    @contextmanager
    def connect(self) -> Iterator[InstallTarget]:
        """Open the target."""
        cli = RuntimeApi.at(
            self.socket,
            label=self.label,
            timeout=timedelta(seconds=self.timeout),
            allow_cleartext=self.allow_cleartext,
        )
        with opened_host(self.host) as host:
            target = HaproxyRuntimeTarget(cli, host)
            # A connector for the machine may change the same files.
            target.lock_name = machine_of(host)
            yield target
