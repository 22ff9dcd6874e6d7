"""Each reader against thousands of spoiled inputs: a clear error, never another exception.

Bounded here; ``make fuzz`` goes on for as long as it is told to.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, Target, attempt
from tests.support.process import die_with_parent

# What breaks readers more often than chance would.
PIECES = (
    *(b"\0", b"\n", b"\r\n", b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b"${", b"#", b"%s", b"-1"),
    *(b"\xff\xfe", b"\xf0\x9f\x92\xa9", b"\xe2\x80\xae", b"\x1b[", b"1e999", b"9" * 400, b"null"),
    *(b"[]", b"{}", b"true", b"NaN", b"../", b"*", b"(" * 300, b"[" * 2000),
    b"\x30\x84\xff\xff\xff",
)


@st.composite
def spoiled(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with pieces put in, taken out and exchanged; sometimes any bytes at all."""
    data = draw(st.sampled_from(seeds))
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 40)))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=8)))
        data = data[:start] + piece + data[end:]
    return data


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_spoiled_input_gives_a_clear_error(target: Target) -> None:
    """The seeds as they are too: they are read, or refused."""

    @settings(
        max_examples=60,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @example(b"")
    @given(spoiled(target.seeds))
    def any_of_them(data: bytes) -> None:
        attempt(target, data)

    for seed in target.seeds:
        attempt(target, seed)
    any_of_them()


def test_the_coverage_guided_fuzzer_finds_nothing(tmp_path: Path) -> None:
    """A few thousand inputs that it chooses by the branches they reach, always the same ones."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--runs", "3000", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        preexec_fn=die_with_parent,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 3000 runs" in done.stderr
