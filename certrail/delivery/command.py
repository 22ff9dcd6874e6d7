"""The command that runs on a host after a delivery.

It is told what happened as one JSON object on standard input, without any
secret::

    {"event": "delivered", "location": "web1/shop", "fingerprint": "…",
     "previous": "…" or null, "names": ["shop.example.test"],
     "not_after": "2026-01-31T12:00:00+00:00", "format": "pem",
     "directory": "/etc/ssl/shop", "files": {"key": "/etc/ssl/shop/privkey.pem", …}}

Its exit code counts: anything but 0 fails the step, and a retry runs it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta

from certrail.connectors import Host
from certrail.errors import Rejected
from certrail.log import effect, plain
from certrail.model import Bundle, Fingerprint, Site, subject_names
from certrail.x509.export import Format, Part

_SHOWN = 400


def description(
    site: Site,
    bundle: Bundle,
    *,
    form: Format,
    directory: str,
    files: Mapping[Part, str],
    previous: Fingerprint | None,
) -> bytes:
    """Return what the command reads: JSON, one line, no secret."""
    leaf = bundle.chain.leaf
    told = {
        "event": "delivered",
        "location": site.id,
        "fingerprint": bundle.chain.fingerprint,
        "previous": previous,
        "names": list(subject_names(leaf)),
        "not_after": leaf.not_valid_after_utc.isoformat(),
        "format": form,
        "directory": directory,
        "files": dict(files),
    }
    return json.dumps(told).encode() + b"\n"


def run_after(host: Host, argv: Sequence[str], told: bytes, timeout: timedelta) -> str:
    """Run *argv* with *told* on its standard input.

    Returns one line for people with how it ended and the last of its output.

    Raises:
        Rejected: its exit code is not 0; ``code`` is the exit code.
        Unreachable: it did not end in time and was told to end.
    """
    result = host.run(argv, stdin=told, timeout=timeout)
    said = plain(result.text)
    said = said if len(said) <= _SHOWN else f"…{said[-_SHOWN:]}"
    effect("delivery.command", host=host.name, program=argv[0], exit_code=result.exit_code)
    if result.exit_code != 0:
        raise Rejected(
            f"the files were delivered to {host.name}, but {plain(argv[0])} ended with exit code "
            f"{result.exit_code}{': ' if said else ''}{said}",
            remedy="Correct the command (`after`) or what it complains about, then retry: the "
            "files stay, only the command runs again.",
            connector=host.name,
            code=str(result.exit_code),
        )
    line = f"{plain(argv[0])} ended well in {result.seconds:.1f} s"
    return f"{line}: {said}" if said else line
