"""What becomes of a key file when keys are added, rotated and retired."""

from __future__ import annotations

from certrail.keys import key_file
from certrail.keys.seal import Keyring, new_key

OLD, FRESH, OTHER = new_key(), new_key(), new_key()


def ids(*keys: str) -> tuple[str, ...]:
    """Return the ids of keys in their order."""
    return Keyring.from_text("\n".join(keys)).ids


def test_the_new_key_seals_and_the_old_ones_open() -> None:
    text = key_file.sealing_by(f"# ours\n{OLD}\n", FRESH)

    assert Keyring.from_text(text).ids == ids(FRESH, OLD)
    assert "# ours" in text


def test_an_added_key_opens_until_it_is_its_turn() -> None:
    text = key_file.with_added(f"{OLD}\n", FRESH)

    assert Keyring.from_text(text).ids == ids(OLD, FRESH)
    assert key_file.added(text) == FRESH
    assert Keyring.from_text(key_file.sealing_by(text, FRESH)).ids == ids(FRESH, OLD)


def test_an_old_key_is_never_taken_for_an_added_one() -> None:
    """To seal by it again would undo the rotation, whoever has stolen it."""
    turned = key_file.sealing_by(key_file.with_added(f"{OLD}\n", FRESH), FRESH)

    assert key_file.added(turned) is None
    assert key_file.added(key_file.sealing_by(f"{OLD}\n", FRESH)) is None
    assert key_file.added(f"{OLD}\n") is None


def test_the_key_that_was_added_last_is_next() -> None:
    text = key_file.with_added(key_file.with_added(f"{OLD}\n", FRESH), OTHER)

    assert key_file.added(text) == OTHER
    turned = key_file.sealing_by(text, OTHER)
    assert Keyring.from_text(turned).ids == ids(OTHER, OLD, FRESH)
    assert key_file.added(turned) == FRESH


def test_a_retired_key_is_gone_and_the_rest_stays() -> None:
    text = f"  # ours, indented\n{FRESH}\n\n{OLD}\n"

    kept = key_file.without(text, Keyring.from_text(OLD).primary)

    assert kept == f"# ours, indented\n{FRESH}\n"


def test_an_added_key_can_be_retired_unused() -> None:
    """What is behind it must not become the added one."""
    text = key_file.with_added(f"{FRESH}\n", OTHER) + f"{OLD}\n"

    kept = key_file.without(text, Keyring.from_text(OTHER).primary)

    assert Keyring.from_text(kept).ids == ids(FRESH, OLD)
    assert key_file.added(kept) is None
