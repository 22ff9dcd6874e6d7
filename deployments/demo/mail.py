"""Mail: a server that takes it, and what has arrived there.

The server is aiosmtpd's, in a process of its own (:mod:`deployments.demo.mail_server`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

from deployments.demo.processes import accepts, free_port, running
from deployments.demo.screen import DemoError

# Within seconds as a rule; each minute at the latest, and the machine may be busy.
_LONGEST_SECONDS = 180.0
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Mail:
    """The running mail server.

    Attributes:
        folder: a Maildir with everything that was taken.
        port: where it takes mail, without encryption.
    """

    folder: Path
    port: int

    def first(self, recipient: str) -> EmailMessage:
        """Wait for mail to *recipient* and return the first.

        Raises:
            DemoError: none has come within three minutes.
        """
        deadline = time.monotonic() + _LONGEST_SECONDS
        while time.monotonic() < deadline:
            # A message lies there once it is whole.
            for path in sorted((self.folder / "new").glob("*")):
                one = _read(path)
                if recipient in str(one["To"]):
                    return one
            time.sleep(_LOOK_SECONDS)
        raise DemoError(
            f"no mail to {recipient} has come within {_LONGEST_SECONDS:.0f} s",
            remedy="`certrail notify log` says what became of it.",
        )


@contextmanager
def receiving(folder: Path) -> Iterator[Mail]:
    """Run the server while the context lasts."""
    folder.mkdir()
    mail = Mail(folder / "taken", free_port())
    command = [sys.executable, "-m", "deployments.demo.mail_server"]
    with running(
        "the mail server",
        [*command, str(mail.folder), str(mail.port)],
        log=folder / "mail.log",
        ready=lambda: accepts(mail.port),
        environment={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    ):
        yield mail


def _read(path: Path) -> EmailMessage:
    with path.open("rb") as file:
        found = BytesParser(policy=default).parse(file)
    assert isinstance(found, EmailMessage)
    return found
