"""Keep what the text of a file was read as: the sites of a server share their files.

Every request reads the configuration of its server anew, from the host. What
hundreds of requests for one server find there is the same text, or the text
that the one before them made and has read already to see what it did.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_MOST_BYTES = 1 << 19


class Remembered(Generic[T]):
    """A pure function of a file's path and bytes, with its latest results.

    *most* bounds the bytes whose results are kept; the latest is always kept.
    Of the bytes themselves only a digest is, since there may be a key in them.
    What *read* returns is shared, so it must be immutable.
    """

    def __init__(self, read: Callable[[bytes, str], T], most: int = _MOST_BYTES) -> None:
        self._read = read
        self._most = most
        self._kept: OrderedDict[tuple[str, bytes], tuple[T, int]] = OrderedDict()
        self._bytes = 0
        self._guard = threading.Lock()

    def __call__(self, data: bytes, path: str) -> T:
        """Return what *data* at *path* means; what *read* raises is raised each time."""
        key = path, hashlib.sha256(data).digest()
        with self._guard:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][0]
        found = self._read(data, path)
        with self._guard:
            if key not in self._kept:
                self._kept[key] = found, len(data)
                self._bytes += len(data)
            while self._bytes > self._most and len(self._kept) > 1:
                _, (_, length) = self._kept.popitem(last=False)
                self._bytes -= length
        return found
