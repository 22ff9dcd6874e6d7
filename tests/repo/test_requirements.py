"""What is installed is exactly what was locked, and nothing in it is known to be bad."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# One package each, at one version, for a tool beside the product.
PLAIN = {"uv.txt"}
LOCKS = sorted(
    path
    for path in (ROOT / "requirements").glob("*.txt")
    if path.name not in {*PLAIN, "known-bad.txt"}
)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")


def locked(path: Path) -> dict[Requirement, list[str]]:
    """Return the requirements of a lock file with their hashes."""
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    found = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            found[Requirement(line.split(" --hash=")[0].strip())] = _HASH.findall(line)
    return found


def known_bad() -> list[tuple[str, SpecifierSet, str]]:
    """Return package, versions and reason of each line."""
    found: list[tuple[str, SpecifierSet, str]] = []
    for line in (ROOT / "requirements" / "known-bad.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            what, _, why = line.partition("  ")
            name, _, versions = what.partition(" ")
            found.append((canonicalize_name(name), SpecifierSet(versions), why))
    return found


def complaints(requirements: dict[Requirement, list[str]]) -> list[str]:
    """Return what is wrong with locked requirements."""
    bad = known_bad()
    found = []
    for one, hashes in requirements.items():
        pins = [each for each in one.specifier if each.operator == "=="]
        if one.url or len(pins) != 1 or len(one.specifier) != 1:
            found.append(f"{one} is not one version from the index")
            continue
        if not hashes:
            found.append(f"{one} has no hash")
        found += [
            f"{one}: {why}"
            for name, versions, why in bad
            if name == canonicalize_name(one.name)
            and versions.contains(pins[0].version, prereleases=True)
        ]
    return found


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_is_whole_and_has_nothing_known_to_be_bad(path: Path) -> None:
    """Without hashes an index could hand out another file under the same version."""
    requirements = locked(path)

    assert requirements
    assert complaints(requirements) == []


def test_what_is_known_to_be_bad_is_found() -> None:
    """The check itself; each line of the list has a reason."""
    hashes = ["--hash=sha256:" + "0" * 64]
    wrong = {
        Requirement("paramiko==3.3.1"): hashes,
        Requirement("httpx==1.0"): [],
        Requirement("acme>=5"): hashes,
        Requirement("josepy @ https://example.test/josepy.whl"): hashes,
    }

    found = complaints(wrong)

    assert len(found) == 4
    assert any("CVE-2023-48795" in one for one in found)
    assert all(why for _, _, why in known_bad())
