"""Connectors as Prefect has them: kinds of blocks, their settings, and the blocks themselves."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from certrail.cli._prefect import client, unreachable
from certrail.configuration.fields import complaints
from certrail.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from prefect.blocks.core import Block

_PAGE = 200


@dataclass(frozen=True, slots=True)
class BlockType:
    """A kind of connector, as its block class describes it.

    Attributes:
        slug: ``type`` in the configuration file.
        title: for people.
        kind: what it can be used as: ``certificate authority``, ``host`` …
        fields: setting names with what is known of each.
    """

    slug: str
    title: str
    kind: str
    description: str
    fields: Mapping[str, BlockField]
    cls: type[Block]


@dataclass(frozen=True, slots=True)
class BlockField:
    """One setting of a connector."""

    name: str
    description: str
    required: bool
    secret: bool
    default: Any
    annotation: Any


def block_types() -> dict[str, BlockType]:
    """Return every kind of connector by its slug, from Prefect's registry of block types."""
    from importlib.metadata import entry_points

    from prefect.blocks.core import Block
    from prefect.plugins import load_prefect_collections
    from prefect.utilities.dispatch import get_registry_for_type

    with warnings.catch_warnings():
        # Other people's collections may warn while they are imported.
        warnings.simplefilter("ignore")
        load_prefect_collections()
        if not any(e.name == "certrail" for e in entry_points(group="prefect.collections")):
            import_module("blocks")  # a checkout that is not installed
    registry = get_registry_for_type(Block) or {}
    return {
        slug: _describe(slug, cls)
        for slug, cls in sorted(registry.items())
        if getattr(cls, "kind", "") and cls.__dict__.get("_block_type_slug")
    }


def stored_settings(reference: str) -> dict[str, Any] | None:
    """Return the settings stored for a connector, secrets as they are stored; None if none are.

    Args:
        reference: ``slug/name``.
    """
    from prefect.exceptions import ObjectNotFound

    slug, _, name = reference.partition("/")
    with client() as opened:
        try:
            document = opened.read_block_document_by_name(name, slug, include_secrets=True)
        except ObjectNotFound:
            return None
    return dict(document.data)


@dataclass(frozen=True, slots=True)
class StoredConnector:
    """A connector's block as Prefect has it, whoever made it.

    Attributes:
        settings: as stored, secrets included.
    """

    name: str
    slug: str
    settings: Mapping[str, Any] = field(repr=False)

    @property
    def reference(self) -> str:
        """What Prefect loads the block by."""
        return f"{self.slug}/{self.name}"


def stored_connectors(types: Iterable[str]) -> list[StoredConnector]:
    """Return every block of these types, sorted by type and name.

    Raises:
        Unreachable: Prefect's API does not answer.
    """
    found: list[StoredConnector] = []
    with client() as opened:
        while True:
            page = opened.request(
                "POST",
                "/block_documents/filter",
                json={
                    "block_types": {"slug": {"any_": sorted(types)}},
                    "block_documents": {"is_anonymous": {"eq_": False}},
                    "include_secrets": True,
                    "limit": _PAGE,
                    "offset": len(found),
                },
            ).json()
            found += [
                StoredConnector(one["name"], one["block_type"]["slug"], one["data"]) for one in page
            ]
            if len(page) < _PAGE:
                return sorted(found, key=lambda one: (one.slug, one.name))


def change_settings(
    reference: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> int:
    """Replace some settings of a connector and leave all others as they are by then.

    Prefect cannot be told to store only if nothing has changed. Others are kept
    off by :func:`certrail.cli._connectors.held`; who edits the block in Prefect's
    pages between reading and storing loses at most the settings that are replaced.

    Args:
        reference: ``slug/name``.
        change: returns the new values of those settings that are to be replaced, from what
            is stored.

    Returns:
        How many were replaced; 0 also when the connector is gone.

    Raises:
        Unreachable: Prefect's API does not answer.
    """
    from prefect.client.schemas.actions import BlockDocumentUpdate
    from prefect.exceptions import ObjectNotFound

    slug, _, name = reference.partition("/")
    with client() as opened:
        try:
            document = opened.read_block_document_by_name(name, slug, include_secrets=True)
            fresh = dict(change(document.data))
            if fresh:
                update = BlockDocumentUpdate(data=fresh, merge_existing_data=True)
                opened.update_block_document(document.id, update)
        except ObjectNotFound:
            return 0
    return len(fresh)


def save_block(block: Block, name: str) -> None:
    """Create or replace the stored settings of a connector."""
    import httpx

    try:
        block.save(name, overwrite=True)
    except httpx.RequestError as exc:
        raise unreachable(exc) from exc


def load_block(reference: str) -> Any:
    """Return a connector's block.

    Raises:
        NotFound: there is none of that name.
        InvalidRequest: its settings cannot be used.
    """
    import httpx
    from prefect.blocks.core import Block
    from pydantic import ValidationError

    block_types()
    try:
        return Block.load(reference)
    except ValidationError as exc:
        # Not chained: the error carries the values, secrets among them.
        raise InvalidRequest(
            f"the connector {reference} has settings that cannot be used: {complaints(exc)}",
            remedy="Correct them in Prefect's UI under Blocks, or with `certrail apply`.",
        ) from None
    except ValueError as exc:
        raise NotFound(
            f"Prefect has no settings for the connector {reference}",
            remedy="Create it in Prefect's UI under Blocks, or with `certrail apply`.",
        ) from exc
    except httpx.RequestError as exc:
        raise unreachable(exc) from exc


def _describe(slug: str, cls: type[Block]) -> BlockType:
    fields = {
        name: BlockField(
            name=name,
            description=info.description or "",
            required=info.is_required(),
            secret=_is_secret(info.annotation),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            annotation=info.annotation,
        )
        for name, info in cls.model_fields.items()
    }
    return BlockType(
        slug=slug,
        title=cls.get_block_type_name(),
        kind=str(getattr(cls, "kind", "")),
        description=(cls.__doc__ or "").strip().split("\n")[0],
        fields=fields,
        cls=cls,
    )


def _is_secret(annotation: Any) -> bool:
    from pydantic import SecretStr

    if get_origin(annotation) in (Union, UnionType):
        return any(_is_secret(part) for part in get_args(annotation))
    return isinstance(annotation, type) and issubclass(annotation, SecretStr)
