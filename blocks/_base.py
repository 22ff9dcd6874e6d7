"""What all connector blocks share.

A block holds a connector's settings and is what Prefect stores and shows. Its
behaviour is a plain class, opened with ``with block.connect() as x:``.
Sessions and sockets never sit on a block, because Prefect serialises blocks.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import httpx
from prefect.blocks.core import Block, schema_extra
from pydantic import ConfigDict, SecretStr, ValidationError, model_validator

from certrail.configuration.fields import complaints
from certrail.connectors import (
    CertificateAuthority,
    DeliveryTarget,
    DnsProvider,
    Host,
    InstallTarget,
    Notifier,
)
from certrail.dns.lookup import Resolver
from certrail.errors import (
    InvalidRequest,
    KeyUnavailable,
    NotFound,
    SealingKeyMissing,
    Unreachable,
)
from certrail.keys.seal import SECRET_PURPOSE, is_sealed, keyring
from certrail.log import logger, plain

_CACHE_SECONDS = 5.0


class ConnectorBlock(Block, ABC):
    """Base of every connector's settings. Unknown fields are refused.

    What has ABC as a base is not offered in Prefect's UI: one makes connectors, not kinds.
    """

    model_config = ConfigDict(
        validate_default=True,
        field_title_generator=lambda name, _: _title(name),
        json_schema_extra=lambda schema, model: _for_people(schema, model),
    )

    kind: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, data: Any) -> Any:
        # Prefect's blocks ignore unknown fields, so a typo would be silent.
        # ``extra="forbid"`` cannot be used: stored documents carry
        # ``block_type_slug`` and private fields of Prefect's own.
        if isinstance(data, dict):
            known = set(cls.model_fields) | {"block_type_slug"}
            unknown = sorted(key for key in data if key not in known and not key.startswith("_"))
            if unknown:
                raise ValueError(
                    f"unknown field {', '.join(unknown)}; {cls.get_block_type_slug()} has: "
                    f"{', '.join(sorted(cls.model_fields))}"
                )
        return data

    @property
    def label(self) -> str:
        """The connector's name where it is stored, else its type."""
        return self._block_document_name or self.get_block_type_slug()

    @classmethod
    def vendors(cls) -> set[type[Self]]:
        """Return every concrete block of this kind that has been imported."""
        found: set[type[Self]] = set()
        pending = list(cls.__subclasses__())
        while pending:
            block = pending.pop()
            pending.extend(block.__subclasses__())
            if block.__dict__.get("_block_type_slug"):
                found.add(block)
        return found

    @classmethod
    def named(cls, reference: str) -> Self:
        """Load the connector stored as ``<slug>/<name>``.

        Blocks are kept for some seconds, so that a bulk job does not ask
        Prefect's API for the same connector for every endpoint.

        Raises:
            NotFound: there is none of that name.
            InvalidRequest: it is of another kind.
        """
        block = _cached(reference)
        if not isinstance(block, cls):
            raise InvalidRequest(
                f"the connector {reference} is a {block.get_block_type_slug()}, not a {cls.kind}",
                remedy=f"Name a connector of the kind {cls.kind} there.",
            )
        return block


class CaBlock(ConnectorBlock, ABC):
    """Settings of a certificate authority."""

    kind = "certificate authority"

    @abstractmethod
    def connect(self) -> AbstractContextManager[CertificateAuthority]:
        """Open the CA."""


class DnsBlock(ConnectorBlock, ABC):
    """Settings of a DNS provider."""

    kind = "DNS provider"

    @abstractmethod
    def connect(self) -> AbstractContextManager[DnsProvider]:
        """Open the provider."""

    @abstractmethod
    def resolver(self) -> Resolver:
        """Return whom to ask for CNAMEs and name servers."""


class HostBlock(ConnectorBlock, ABC):
    """Settings of a machine whose files and commands may be used."""

    kind = "host"

    @abstractmethod
    def connect(self) -> AbstractContextManager[Host]:
        """Open the host."""


class TargetBlock(ConnectorBlock, ABC):
    """Settings of an appliance or cloud service that serves certificates."""

    kind = "install target"

    @abstractmethod
    def connect(self) -> AbstractContextManager[InstallTarget]:
        """Open the target."""


class DeliveryBlock(ConnectorBlock, ABC):
    """Settings of a place that stores certificates without serving them."""

    kind = "delivery target"

    @abstractmethod
    def connect(self) -> AbstractContextManager[DeliveryTarget]:
        """Open the target."""


class NotifierBlock(ConnectorBlock, ABC):
    """Settings of something that carries messages to people or programs."""

    kind = "notifier"

    @abstractmethod
    def connect(self) -> AbstractContextManager[Notifier]:
        """Open the notifier."""


_WORDS = {
    word.lower(): word
    for word in (
        *("ACME", "API", "ARN", "AWS", "CA", "CRL", "DCV", "EAB", "HMAC", "HTTP", "ID", "KMS"),
        *("SSH", "TCP", "TLS", "TTL", "URL"),
    )
} | {"kid": "key ID", "dir": "folder"}


def _title(name: str) -> str:
    """Return a field's name as the UI's form shows it: ``eab_kid`` is `EAB key ID`."""
    words = [_WORDS.get(word, word) for word in name.split("_")]
    text = " ".join(words)
    return text[:1].upper() + text[1:]


def _for_people(schema: dict[str, Any], model: type[Block]) -> None:
    schema_extra(schema, model)
    for field in schema.get("properties", {}).values():
        # "or null" makes two fields of one; leaving it empty says the same.
        kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            del field["anyOf"]
            field |= kinds[0]
            if field.get("default", "") is None:
                del field["default"]


def open_secret(secret: SecretStr | None) -> str:
    """Return what a secret field stands for.

    ``env:NAME`` is read from the environment and ``file:/path`` from a file
    of the worker; ``sealed:…`` is opened with the sealing key; anything else is
    the secret itself.

    Raises:
        KeyUnavailable: the reference leads nowhere, or the seal cannot be opened.
    """
    return open_reference(secret.get_secret_value()) if secret is not None else ""


def open_reference(text: str) -> str:
    """Return what *text* stands for, as :func:`open_secret` says.

    Raises:
        KeyUnavailable: the reference leads nowhere, every account of the machine may
            change the file it leads to, or the seal cannot be opened.
    """
    if is_sealed(text):
        try:
            return keyring().open(text, SECRET_PURPOSE).decode()
        except SealingKeyMissing:
            # The connector may have been read before its secrets were sealed anew and the
            # key was retired: whoever tries again must not get what is remembered.
            forget_connectors()
            raise
    scheme, _, rest = text.partition(":")
    if scheme == "env":
        if rest not in os.environ:
            raise KeyUnavailable(
                f"the environment variable {rest} is not set on this worker",
                remedy=f"Set {rest} for the worker, or store the secret sealed.",
            )
        return os.environ[rest]
    if scheme == "file":
        try:
            _must_be_kept(rest)
            return Path(rest).read_text().rstrip("\n")
        except OSError as exc:
            raise KeyUnavailable(
                f"cannot read the secret file {rest}: {exc.strerror}",
                remedy="Create the file on the worker, readable by its account only.",
            ) from exc
    return text


def _must_be_kept(path: str) -> None:
    mode = Path(path).stat().st_mode
    if mode & stat.S_IWOTH:
        raise KeyUnavailable(
            f"the secret file {path} can be changed by every account of this machine",
            remedy=f"chmod 600 {path}, and put the right secret into it again.",
        )
    # Container platforms mount secrets like this, so it is only told.
    if mode & stat.S_IROTH and path not in _told:
        _told.add(path)
        logger.warning("the secret file %s can be read by every account: chmod 600", plain(path))


_told: set[str] = set()


def forget_connectors() -> None:
    """Load every connector anew: somebody may have just corrected one."""
    with _cache_lock:
        _cache.clear()


_cache: dict[str, tuple[float, ConnectorBlock]] = {}
_cache_lock = threading.Lock()
_loading: dict[str, threading.Lock] = {}


def _cached(reference: str) -> ConnectorBlock:
    with _cache_lock:
        if (known := _known(reference)) is not None:
            return known
        loading = _loading.setdefault(reference, threading.Lock())
    # The steps of a bulk job come together: one asks, the others wait for its answer; not
    # for long, as an API that is away would then be asked by one after the other.
    is_alone = loading.acquire(timeout=_CACHE_SECONDS)
    try:
        with _cache_lock:
            if (known := _known(reference)) is not None:
                return known
        block = _load(reference)
        with _cache_lock:
            _cache[reference] = (time.monotonic() + _CACHE_SECONDS, block)
        return block
    finally:
        if is_alone:
            loading.release()


def _known(reference: str) -> ConnectorBlock | None:
    found = _cache.get(reference)
    return found[1] if found and found[0] > time.monotonic() else None


def _load(reference: str) -> ConnectorBlock:
    try:
        # A step's thread carries the context of an async flow, which would make
        # Prefect hand out a coroutine here.
        return cast(ConnectorBlock, Block.load(reference, _sync=True))  # type: ignore[call-arg]
    except httpx.HTTPError as exc:
        raise Unreachable(
            f"Prefect's API does not give out the connector {reference}: {type(exc).__name__}",
            remedy="Check that the Prefect server runs and that PREFECT_API_URL leads to it.",
        ) from exc
    except ValidationError as exc:
        # Not chained: the error carries the values, secrets among them.
        raise InvalidRequest(
            f"the connector {reference} has settings that cannot be used: {complaints(exc)}",
            remedy="Correct them with `certrail apply` or in Prefect's UI under Blocks.",
        ) from None
    except ValueError as exc:
        raise NotFound(
            f"there is no connector {reference}",
            remedy="Create it with `certrail apply` or in Prefect's UI under Blocks.",
        ) from exc
