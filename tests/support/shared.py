"""Servers that take long to start: one for all tests of a process that leave it as it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")
AT_END = ExitStack()
"""Closed when the tests of this process are over (``tests/conftest.py``)."""


class Shared(Generic[T]):
    """A server that the first test starts that needs it."""

    def __init__(self, started: Callable[[], AbstractContextManager[T]]) -> None:
        self._started = started
        self._server: T | None = None

    def get(self) -> T:
        """Return it, running."""
        if self._server is None:
            self._server = AT_END.enter_context(self._started())
        return self._server
