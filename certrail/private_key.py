"""The only type that holds a private key in the clear."""

from __future__ import annotations

from typing import Never


class PrivateKeyPem:
    """A private key (PKCS #8 PEM, unencrypted) in memory.

    It prints as a placeholder and refuses pickling, so it can be neither a
    stored Prefect result nor an argument to another process. ``reveal`` is
    the one way out; grep for it to audit every use.
    """

    __slots__ = ("_pem",)

    def __init__(self, pem: bytes) -> None:
        self._pem = pem

    def reveal(self) -> bytes:
        """Return the PEM bytes."""
        return self._pem

    def __repr__(self) -> str:
        return "PrivateKeyPem(<hidden>)"

    def __reduce__(self) -> Never:
        raise TypeError("a private key does not leave its process")

    def __copy__(self) -> PrivateKeyPem:
        return self

    def __deepcopy__(self, memo: object) -> PrivateKeyPem:
        return self
