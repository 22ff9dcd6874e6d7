"""What we ask of whatever brings a message to people."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from certrail.connectors.base import Connector
from certrail.message import Message


class Notifier(Connector):
    """Carries messages to people or programs.

    Attributes:
        takes_addresses: whether each message needs an address of its own.
    """

    takes_addresses: ClassVar[bool] = False

    @abstractmethod
    def send(self, message: Message) -> str:
        """Hand *message* over once and return what the other side answered, in one line.

        Returning means that the other side took it. An error means that it did
        not, or that nobody can know; the same message may then come again.

        Raises:
            Rejected: it will not be taken, however often it is sent.
        """
