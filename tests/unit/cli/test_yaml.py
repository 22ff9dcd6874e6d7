"""Reading YAML: lines for every value, and none of its traps."""

from __future__ import annotations

import pytest

from certrail.cli._yaml import path_text, read
from certrail.errors import InvalidRequest


def test_every_value_knows_its_line() -> None:
    """A complaint without a line is of little use in a file of a thousand endpoints."""
    document = read(
        "profiles:\n  - name: a\n    validation: {method: dns-01,\n      dns: ns}\n", "f.yaml"
    )

    assert document.where(("profiles", 0, "validation", "dns")) == "f.yaml:4"
    assert document.where(("profiles", 0)) == "f.yaml:2"
    assert document.where(("profiles", 0, "key", "algorithm")) == "f.yaml:2"
    assert path_text(("profiles", 0, "validation", "dns")) == "profiles[0].validation.dns"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12:30", "12:30"),
        ("02:00", "02:00"),
        ("2027-01-31", "2027-01-31"),
        ("0o17", "0o17"),
        ("017", "017"),
        ("0x1f", "0x1f"),
        ("yes", "yes"),
        ("off", "off"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("42", 42),
        ("-1", -1),
        ("0.67", 0.67),
        (".inf", ".inf"),
        ("'42'", "42"),
        ("1_000", "1_000"),
    ],
)
def test_only_plain_kinds_of_scalar_exist(text: str, value: object) -> None:
    """YAML 1.1 would read 12:30 as 750 and `off` as false: both have bitten people."""
    assert read(f"a: {text}\n", "f").data == {"a": value}


def test_a_key_that_is_there_twice_is_refused_with_the_line_of_the_second() -> None:
    """YAML readers silently keep the last one: half of a configuration would vanish."""
    with pytest.raises(InvalidRequest, match=r"f:3: a\.b is there twice"):
        read("a:\n  b: 1\n  b: 2\n", "f")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: !!python/object/apply:os.system [id]\n", "not allowed"),
        ("a: !!binary aGk=\n", "not allowed"),
        ("a: !secret x\n", "not allowed"),
        ("a: !!set {x}\n", "not allowed"),
        ("a: &x [*x]\n", "inside of what it repeats"),
        ("{[1, 2]: 3}\n", "a key must be a text"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("a: [1, 2\n", "not YAML"),
        ("a: *nowhere\n", "not YAML"),
        ("\ta: 1\n", "not YAML"),
        ("a: \x00\n", "not YAML"),
    ],
)
def test_what_is_not_plain_data_is_refused(text: str, why: str) -> None:
    """Tags make objects, and a configuration file is only data."""
    with pytest.raises(InvalidRequest, match=why):
        read(text, "f")


def test_aliases_that_multiply_are_refused() -> None:
    """A file of a few lines must not fill the memory."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    with pytest.raises(InvalidRequest, match="values, aliases counted each time"):
        read("\n".join(lines), "f")


def test_endless_nesting_is_refused() -> None:
    """The reader is recursive and must not run out of stack."""
    with pytest.raises(InvalidRequest, match="levels deep"):
        read("[" * 10_000, "f")


def test_anchors_and_merges_work() -> None:
    """Many endpoints alike are written with `<<`; the nearer value wins."""
    document = read(
        "base: &b {x: 1, y: 1}\nother: &o {y: 2, z: 2}\nall: {<<: [*b, *o], x: 3}\n", "f"
    )

    assert document.data["all"] == {"x": 3, "y": 1, "z": 2}


def test_environment_variables_are_put_into_values() -> None:
    """Secrets come from the environment, not from the file; keys are not touched."""
    document = read(
        "a: ${ONE}-${TWO}\nb: $${ONE}\nc: $ONE\n${ONE}: d\ne: '${ONE}'\n",
        "f",
        {"ONE": "1", "TWO": "two: {x}"},
    )

    assert document.data == {"a": "1-two: {x}", "b": "${ONE}", "c": "$ONE", "${ONE}": "d", "e": "1"}


@pytest.mark.parametrize("text", ["${MISSING}", "${}", "${a b}", "${A:-x}"])
def test_a_variable_that_is_not_set_is_told_with_its_line(text: str) -> None:
    """An empty secret must never be stored by accident."""
    with pytest.raises(InvalidRequest, match=r"f:2: .*environment variable"):
        read(f"a: 1\nb: '{text}'\n", "f", {})


def test_values_of_secrets_are_not_in_the_representation() -> None:
    """A document may end in a log of somebody who debugs."""
    assert "hunter2" not in repr(read("a: hunter2", "f"))
