"""The guide for a new connector, followed to the letter in a copy of the project."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "adding-a-connector.md"
_PIECE = re.compile(
    r"<!-- (?P<what>\w+): (?P<path>\S+) -->\n```python\n(?P<text>.*?)```", re.DOTALL
)
_COPIED = ("blocks", "certrail", "tests", "pyproject.toml")
_IMPORTS = """
from blocks.targets.lantern import LanternTarget
from tests.support import lantern_api
from tests.support.lantern_api import Lantern
"""


def followed(folder: Path) -> Path:
    """Return a copy of the project with the guide's pieces put where it says."""
    copy = folder / "project"
    copy.mkdir()
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    pieces = [(m["what"], copy / m["path"], m["text"]) for m in _PIECE.finditer(GUIDE.read_text())]
    assert [what for what, _, _ in pieces] == ["file", "import", "file", "case"]
    for what, path, text in pieces:
        if what == "file":
            assert not path.exists()
            path.write_text(text)
        elif what == "import":
            path.write_text(
                path.read_text().replace("__all__ = [", f'{text}\n__all__ = ["Lantern",')
            )
        else:
            body, case, rest = text.partition("Case(")
            whole = path.read_text()
            head, list_, tail = whole.partition("APPLIANCES = (\n")
            assert list_
            path.write_text(f"{head}{_IMPORTS}\n{body}\n{list_}    {case}{rest.strip()},\n{tail}")
    return copy


@pytest.mark.timeout(300)
def test_the_example_keeps_the_contract(tmp_path: Path) -> None:
    """One file, one import, one case: nothing else is touched, and every promise is kept."""
    copy = followed(tmp_path)
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    selected = "lantern or every_install_target_is_under_contract"
    argv = ["-q", "-p", "no:cacheprovider", "-k", selected, "tests/contract/test_install_target.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *argv], cwd=copy, env=env, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) passed", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= 19
    # Without the import it would be the old list of connectors that passed.
    program = "import blocks; print(blocks.__file__, blocks.Lantern.get_block_type_slug())"
    shown = subprocess.run(
        [sys.executable, "-c", program], cwd=copy, env=env, capture_output=True, text=True
    )
    assert shown.stdout.split() == [str(copy / "blocks" / "__init__.py"), "target-lantern"]


def test_a_connector_without_a_case_is_found(tmp_path: Path) -> None:
    """The guide promises that the tests say what is missing."""
    copy = followed(tmp_path)
    cases = copy / "tests" / "contract" / "appliance_cases.py"
    lines = [line for line in cases.read_text().splitlines() if '"target-lantern"' not in line]
    cases.write_text("\n".join(lines) + "\n")
    env = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    argv = ["-q", "-p", "no:cacheprovider", "-k", "every_install_target_is_under_contract"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *argv, "tests/contract/test_install_target.py"],
        cwd=copy,
        env=env,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1, done.stdout
    assert "target-lantern" in done.stdout
