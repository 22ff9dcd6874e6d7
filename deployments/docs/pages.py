"""Find the generated regions of the pages and bring them up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from certrail.errors import InvalidRequest
from deployments.docs.regions import KINDS, connectors

ROOT = Path(__file__).resolve().parents[2]
CONNECTORS = ROOT / "docs" / "connectors"
SECTIONS = ("## Needed on the other side", "## Tested against")
"""What is written by hand on the page of every connector."""
_END = "<!-- end of generated text -->"
_REGION = re.compile(
    rf"(?P<begin><!-- generated: (?P<kind>[a-z-]+)(?: (?P<what>\S+))? -->\n).*?(?P<end>{_END})",
    re.DOTALL,
)


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def begun() -> dict[Path, str]:
    """Return the pages of connectors that have none yet; their sections are to be written."""
    found = {}
    for slug, block in connectors().items():
        path = CONNECTORS / f"{slug}.md"
        if not path.exists():
            title = block.get_block_type_name().rpartition(": ")[2]
            parts = [f"# {title}", f"<!-- generated: connector {slug} -->\n{_END}", *SECTIONS]
            found[path] = updated("\n\n".join(parts) + "\n")
    return found


def regions(text: str) -> Iterator[tuple[str, str]]:
    """Yield kind and subject of the regions of a page."""
    for match in _REGION.finditer(text):
        yield match["kind"], match["what"] or ""


def updated(text: str) -> str:
    """Return a page with its regions as the code says.

    Raises:
        InvalidRequest: a region asks for something that there is not.
    """

    def fill(match: re.Match[str]) -> str:
        kind, what = match["kind"], match["what"] or ""
        if kind not in KINDS:
            raise InvalidRequest(
                f"nothing generates a region {kind!r}", remedy=f"Known: {', '.join(KINDS)}."
            )
        return f"{match['begin']}\n{KINDS[kind](what).strip()}\n\n{match['end']}"

    return _REGION.sub(fill, text)


def stale() -> dict[Path, str]:
    """Return the pages that are not up to date, with what they should be."""
    found = {}
    for path in pages():
        text = path.read_text()
        if (new := updated(text)) != text:
            found[path] = new
    return found
