"""``benchmarks/reliability.md``: a section for each command that measures, which replaces it."""

from __future__ import annotations

import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "reliability.md"
_HEAD = "# Reliability"


def put(title: str, text: str, file: Path = RESULTS) -> None:
    """Replace the section *title* of *file*, or add it."""
    before = file.read_text() if file.exists() else _HEAD
    _, *parts = re.split(r"^## ", before, flags=re.MULTILINE)
    sections = {name: body for name, _, body in (part.partition("\n") for part in parts)}
    sections[title] = f"\n{text.strip()}\n"
    whole = "".join(f"\n## {name}\n\n{body.strip()}\n" for name, body in sections.items())
    file.write_text(f"{_HEAD}\n{whole}")
