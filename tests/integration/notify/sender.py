"""A process that sends what is due, for a test to kill: ``python -m … PORT``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from blocks.notifiers.smtp import SmtpMail
from certrail.connectors import Notifier
from certrail.notify import drain


@contextmanager
def _open(reference: str) -> Iterator[Notifier]:
    block = SmtpMail(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        security="none",
        sender="Certrail <certrail@example.test>",
        timeout=100,
    )
    with block.connect() as notifier:
        yield notifier


if __name__ == "__main__":
    drain.send_due(_open, ui_url="")
