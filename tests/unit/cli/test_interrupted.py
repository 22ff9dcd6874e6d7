"""Ctrl-C at a command's very beginning, while most of it is not imported yet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "from certrail.cli.main import main; main()"
TRACE = "import time:"


# In the order in which they are imported; the last one nearly a second later on a small machine.
@pytest.mark.parametrize(
    "module",
    [
        *("click._compat", "click", "certrail.errors", "certrail.heap"),
        *("sqlalchemy", "certrail.configuration.plan"),
    ],
)
def test_whatever_is_imported_it_ends_with_one_word(module: str, tmp_path: Path) -> None:
    """A traceback looks as if something had been broken off; nothing has been begun."""
    configuration = tmp_path / "certificates.yaml"
    configuration.write_text("endpoints: []\n")
    data = tmp_path / "data"
    process = subprocess.Popen(
        # Python tells each module as it is imported.
        [sys.executable, "-X", "importtime", "-c", COMMAND, "apply", "-f", str(configuration)],
        env={**os.environ, "CERTRAIL_DATA_DIR": str(data)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told: list[str] = []
    for line in process.stderr:
        told.append(line)
        if line.startswith(TRACE) and line.rpartition("|")[2].strip() == module:
            process.send_signal(signal.SIGINT)
            break
    printed, rest = process.communicate(timeout=60)
    told += rest.splitlines(keepends=True)

    said = "".join(line for line in told if not line.startswith(TRACE))
    assert (process.returncode, printed, said.strip()) == (130, "", "interrupted")
    assert not data.exists()
