"""Connectors that people made in Prefect's UI: they are blocks before the inventory knows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import IntegrityError

from certrail.cli import _prefect_blocks
from certrail.cli._connectors import held, in_the_clear, sealed_text
from certrail.cli._prefect_blocks import BlockType, StoredConnector
from certrail.configuration.fields import Slug, complaints
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.store import configured
from certrail.store.configured import Change, ConnectorRow, Effect, FieldChange
from certrail.store.database import transaction

ACTOR = "Prefect UI"
_NAME: TypeAdapter[str] = TypeAdapter(Slug)


@dataclass(frozen=True, slots=True)
class Known:
    """Every connector there is.

    Attributes:
        rows: those that can be used by name.
        problems: what is the matter with a name, and the remedy: several blocks bear it, its
            block is gone, or its settings cannot be used.
        ambiguous: names that several blocks bear.
    """

    rows: Mapping[str, ConnectorRow]
    problems: Mapping[str, tuple[str, str]]
    ambiguous: frozenset[str]

    def must_be_usable(self, names: Sequence[str]) -> None:
        """Check that none of *names* has a problem.

        Raises:
            InvalidRequest: one has.
        """
        wrong = [self.problems[name] for name in dict.fromkeys(names) if name in self.problems]
        if wrong:
            raise InvalidRequest(
                "\n".join(cause for cause, _ in wrong),
                remedy=" ".join(dict.fromkeys(remedy for _, remedy in wrong)),
            )


def known() -> Known:
    """Return every connector, after taking in what was made or changed in Prefect's UI.

    A new block gets its row; secrets that were typed into the page are sealed.

    Raises:
        Unreachable: Prefect's API or the database does not answer.
    """
    types = _prefect_blocks.block_types()
    blocks: dict[str, list[StoredConnector]] = defaultdict(list)
    for block in _prefect_blocks.stored_connectors(types):
        blocks[block.name].append(block)
    with transaction() as connection:
        rows = {row.name: row for row in configured.all_connectors(connection)}
    problems: dict[str, tuple[str, str]] = {}
    for name, made in blocks.items():
        if problem := _problem(name, made):
            problems[name] = problem
            continue
        (block,) = made
        if name not in rows or rows[name].slug != block.slug:
            rows[name] = _taken_in(block, rows.get(name))
        if problem := _sealed(block, types[block.slug]):
            problems[name] = problem
    for name, row in rows.items():
        if name not in blocks:
            problems[name] = (
                f"the settings of the connector {name} ({row.slug}) are gone from Prefect",
                "Create it again in Prefect's UI under Blocks, or with `certrail apply`.",
            )
    ambiguous = frozenset(name for name, made in blocks.items() if len(made) > 1)
    return Known(dict(sorted(rows.items())), problems, ambiguous)


def _problem(name: str, made: Sequence[StoredConnector]) -> tuple[str, str] | None:
    if len(made) > 1:
        listed = " and ".join(block.slug for block in made)
        return (
            f"{len(made)} connectors are called {name} in Prefect: {listed}",
            "A name stands for one connector: delete one of the blocks in Prefect's UI and make it "
            "again under another name.",
        )
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return (
            f"the block {made[0].reference} cannot be used as a connector: its name has to begin "
            "with a letter or digit and to be 63 characters at most",
            "Make it again in Prefect's UI under another name.",
        )
    return None


def _taken_in(block: StoredConnector, before: ConnectorRow | None) -> ConnectorRow:
    # A row whose block was deleted takes the new block of that name, whatever its type.
    fields = (FieldChange("type", before.slug, block.slug),) if before else ()
    effect = Effect.CHANGED if before else Effect.CREATED
    change = Change("connector", block.name, effect, fields)
    # Somebody else may take it in at the same moment.
    with suppress(IntegrityError), transaction() as connection:
        configured.keep_connector(connection, change, block.slug, ACTOR)
    return ConnectorRow(block.name, block.slug)


def _sealed(block: StoredConnector, block_type: BlockType) -> tuple[str, str] | None:
    """Seal secrets stored in the clear; returns what is wrong with the settings."""
    try:
        block_type.cls(**block.settings)
    except ValidationError as exc:
        return (
            f"the connector {block.name} has settings that cannot be used: {complaints(exc)}",
            "Correct them in Prefect's UI under Blocks, or with `certrail apply`.",
        )
    if in_the_clear(block.settings, block_type):
        # Without our key it works as it is; Prefect's own encryption protects it meanwhile.
        with suppress(KeyUnavailable), held():
            _prefect_blocks.change_settings(
                block.reference,
                lambda stored: {
                    name: sealed_text(plain)
                    for name, plain in in_the_clear(stored, block_type).items()
                },
            )
    return None
