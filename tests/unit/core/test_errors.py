"""The error tree."""

from __future__ import annotations

import pickle

import pytest

from certrail import errors
from certrail.errors import CertrailError

TREE = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, CertrailError)
]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[CertrailError]) -> None:
    """Prefect stores exceptions; one that cannot be read back hides the real cause."""
    error = kind("the cause", remedy="the remedy")

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is kind
    assert str(again) == "the cause"
    assert again.remedy == "the remedy"


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_has_a_remedy_without_being_told(kind: type[CertrailError]) -> None:
    """A failed step always shows what a person can do."""
    assert kind("x").remedy


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_module(kind: type[CertrailError]) -> None:
    """The drawing is where people look whether a retry can help."""
    assert errors.__doc__
    line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__}" in f" {line}")
    assert ("*" in line) is (kind.retryable and kind is not CertrailError)
