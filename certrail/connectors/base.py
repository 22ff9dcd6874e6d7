"""What every connector can do."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Connector(ABC):
    """Something outside that we can talk to."""

    @abstractmethod
    def check(self) -> str:
        """Make one cheap authenticated call.

        Returns one line for people about what answered. Changes nothing.
        """
