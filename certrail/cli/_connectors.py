"""Storing connectors: what changed in their settings, and secrets sealed before they are saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import SecretStr

from certrail.cli._prefect_blocks import BlockType, save_block, stored_settings
from certrail.errors import KeyUnavailable
from certrail.keys.seal import SECRET_PURPOSE, is_sealed, keyring
from certrail.store.configured import Change, Effect, FieldChange, compare
from certrail.store.database import locked

_REFERENCES = ("env:", "file:")
_HIDDEN = "(secret)"


@dataclass(frozen=True, slots=True)
class Saving:
    """A connector that is ready to be stored.

    Attributes:
        change: what storing it changes; never tells a secret.
        slug: its block type.
        executor: the agent or sensor that reaches it, None for any.
    """

    change: Change
    slug: str
    block: Any = field(repr=False)
    executor: str | None = None

    def reached_by(self, executor: str | None, *, before: str | None) -> Saving:
        """Return the same, reached by an agent or sensor (None: by any)."""
        change = self.change
        if executor != before and change.effect is not Effect.CREATED:
            told = FieldChange("executor", before, executor)
            change = replace(change, effect=Effect.CHANGED, fields=(*change.fields, told))
        return replace(self, change=change, executor=executor)

    def save(self) -> None:
        """Store the settings, if they differ."""
        if self.change.effect is not Effect.UNCHANGED:
            save_block(self.block, self.change.name)


@contextmanager
def held() -> Iterator[None]:
    """Keep the stored settings of all connectors to this process while the block runs.

    Who reads settings to store something that follows from them needs this from the
    reading to the storing, or overwrites what came between. Not to be nested.
    """
    with locked("settings of connectors"):
        yield


def prepare(name: str, block_type: BlockType, block: Any, *, exists: bool) -> Saving:
    """Compare *block* with what is stored under *name* and seal its secrets; see :func:`held`.

    Raises:
        KeyUnavailable: there is no key to seal with.
        Unreachable: Prefect's API does not answer.
    """
    slug = block_type.slug
    stored = stored_settings(f"{slug}/{name}")
    secrets = [f.name for f in block_type.fields.values() if f.secret]
    wanted = block.model_dump(mode="json", include=set(block_type.fields) - set(secrets))
    fields: list[FieldChange] = []
    if stored is not None:
        before = {key: stored.get(key, _default(block_type, key)) for key in wanted}
        fields += compare("connector", name, before, wanted).fields
    sealed: dict[str, SecretStr] = {}
    for secret in secrets:
        plain = _reveal(getattr(block, secret))
        kept = _text((stored or {}).get(secret))
        if kept and _same(kept, plain):
            sealed[secret] = SecretStr(kept)
            continue
        if plain:
            sealed[secret] = SecretStr(sealed_text(plain))
        if stored is not None and (plain or kept):
            fields.append(
                FieldChange(secret, _HIDDEN if kept else None, _HIDDEN if plain else None)
            )
    effect = _effect(exists=exists, has_settings=stored is not None, differs=bool(fields))
    change = Change("connector", name, effect, tuple(fields) if exists else ())
    return Saving(change, slug, block.model_copy(update=sealed))


def in_the_clear(settings: Mapping[str, Any], block_type: BlockType) -> dict[str, str]:
    """Return those secrets of stored settings that are neither sealed nor references."""
    found = {f.name: _text(settings.get(f.name)) for f in block_type.fields.values() if f.secret}
    return {name: plain for name, plain in found.items() if plain and not _stays_as_it_is(plain)}


def _effect(*, exists: bool, has_settings: bool, differs: bool) -> Effect:
    if not exists:
        return Effect.CREATED
    return Effect.UNCHANGED if has_settings and not differs else Effect.CHANGED


def _default(block_type: BlockType, key: str) -> Any:
    # A field that is newer than the stored settings counts as its default.
    return block_type.fields[key].default


def _reveal(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _same(kept: str, plain: str) -> bool:
    if not is_sealed(kept):
        # A secret that somebody saved in the clear is stored again, sealed.
        return kept == plain and _stays_as_it_is(plain)
    if is_sealed(plain):
        return kept == plain
    try:
        return keyring().open(kept, SECRET_PURPOSE).decode() == plain
    except KeyUnavailable:
        return False


def sealed_text(plain: str) -> str:
    """Return a secret as it is stored: sealed, unless it is so already or is a reference.

    Raises:
        KeyUnavailable: there is no key to seal with.
    """
    if _stays_as_it_is(plain):
        return plain
    return keyring().seal(plain.encode(), SECRET_PURPOSE)


def _stays_as_it_is(text: str) -> bool:
    return is_sealed(text) or text.startswith(_REFERENCES)


def describe(change: FieldChange) -> str:
    """Return one changed field for people; long values are not spelled out."""
    before, after = (_short(value) for value in (change.before, change.after))
    if before == _HIDDEN and after == _HIDDEN:
        return f"{change.field} changed {_HIDDEN}"
    if before == after:
        return f"{change.field} changed"
    return f"{change.field} {before} → {after}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_short(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{…}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "(text)" if "\n" in text or len(text) > 80 else text
