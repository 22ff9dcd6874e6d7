"""Private keys and sealing keys stay where they are."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from certrail.errors import KeyUnavailable
from certrail.keys import seal
from certrail.keys.generate import generate
from certrail.keys.seal import Keyring, is_sealed, keyring, new_key
from certrail.model import KeyAlgorithm
from certrail.private_key import PrivateKeyPem


def test_a_private_key_does_not_print() -> None:
    """A key in a log line or a traceback is a key that leaked."""
    key = PrivateKeyPem(b"-----BEGIN PRIVATE KEY-----")

    assert "BEGIN" not in f"{key} {key!r} {[key]}"


def test_a_private_key_does_not_leave_its_process() -> None:
    """Results and parameters are pickled; a key must refuse."""
    with pytest.raises(TypeError, match="does not leave"):
        pickle.dumps(PrivateKeyPem(b"x"))


def test_a_private_key_can_be_copied_within_the_process() -> None:
    """Dataclass helpers copy what they hold."""
    key = PrivateKeyPem(b"x")

    assert copy.deepcopy(key) is key


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_keys_are_made_in_every_algorithm(algorithm: KeyAlgorithm) -> None:
    """RSA keys come from another process; they must arrive whole."""
    assert generate(algorithm).reveal().startswith(b"-----BEGIN PRIVATE KEY-----")


def test_what_is_sealed_opens_only_for_its_purpose() -> None:
    """A sealed text that is moved to another row must not open there."""
    ring = Keyring.from_text(new_key())
    token = ring.seal(b"secret", "private-key:1")

    assert is_sealed(token)
    assert ring.open(token, "private-key:1") == b"secret"
    with pytest.raises(KeyUnavailable, match="altered"):
        ring.open(token, "private-key:2")


def test_an_older_key_still_opens_and_the_first_one_seals() -> None:
    """Rotation goes on while requests run."""
    old, new = new_key(), new_key()
    token = Keyring.from_text(old).seal(b"x", "p")

    ring = Keyring.from_text(f"# newest first\n{new}\n{old}\n")

    assert ring.open(token, "p") == b"x"
    assert not ring.is_current(token)
    assert ring.is_current(ring.seal(b"x", "p"))


def test_another_key_is_named_as_the_cause() -> None:
    """The operator has to know which key is missing, not that something is wrong."""
    token = Keyring.from_text(new_key()).seal(b"x", "p")

    with pytest.raises(KeyUnavailable, match="which is not here"):
        Keyring.from_text(new_key()).open(token, "p")


@pytest.mark.parametrize("damage", ["sealed:v1:", "sealed:v1:abc", "sealed:v1:abc:!!", "x"])
def test_a_damaged_value_is_called_damaged(damage: str) -> None:
    """Anything can be in a database; it must end in an error with a remedy."""
    with pytest.raises(KeyUnavailable):
        Keyring.from_text(new_key()).open(damage, "p")


@pytest.mark.parametrize("text", ["", "short", "AAAA", "#only a comment"])
def test_a_key_of_another_form_is_refused(text: str) -> None:
    """A weak key by a typing error would seal everything badly."""
    with pytest.raises(KeyUnavailable):
        Keyring.from_text(text)


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """Whoever reads it opens every key in the database."""
    file = tmp_path / "certrail.key"
    file.write_text(new_key())
    file.chmod(0o644)

    with pytest.raises(KeyUnavailable, match="readable by others"):
        Keyring.from_file(file)


def test_the_keyring_follows_a_rotated_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers keep running while a key is rotated."""
    file = tmp_path / "certrail.key"
    file.touch(mode=0o600)
    file.write_text(new_key())
    monkeypatch.delenv("CERTRAIL_KEY", raising=False)
    monkeypatch.setenv("CERTRAIL_KEY_FILE", str(file))
    first = keyring().primary

    file.write_text(f"{new_key()}\n{file.read_text()}")

    assert first != keyring().primary


def test_without_a_key_the_remedy_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that a new worker lacks."""
    monkeypatch.delenv("CERTRAIL_KEY", raising=False)
    monkeypatch.delenv("CERTRAIL_KEY_FILE", raising=False)

    with pytest.raises(KeyUnavailable) as caught:
        seal.keyring()

    assert "CERTRAIL_KEY_FILE" in caught.value.remedy


def test_a_keyring_does_not_print_or_pickle() -> None:
    """It is the one secret behind all others."""
    text = new_key()
    ring = Keyring.from_text(text)

    assert text not in repr(ring)
    with pytest.raises(TypeError):
        pickle.dumps(ring)
