"""What installing would change, for a dry run."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from certrail.words import counted


@dataclass(frozen=True, slots=True)
class Plan:
    """What installing would change, before anything is.

    Attributes:
        place: ``file:line`` of the server block.
        directory: where the certificate will be kept.
        before, after: content of each file to be changed, by path.
        replaced, added: number of directives.
    """

    place: str
    directory: str
    before: dict[str, bytes]
    after: dict[str, bytes]
    replaced: int
    added: int

    @property
    def summary(self) -> str:
        """One phrase for people."""
        if not self.after:
            return "certificate version switched, no configuration changed"
        parts = [counted(len(self.after), "file")]
        for count, what in ((self.replaced, "replaced"), (self.added, "added")):
            if count:
                parts.append(f"{counted(count, 'directive')} {what}")
        return ", ".join(parts)

    def diff(self) -> str:
        """Return the change as a unified diff, "" if no file changes."""
        lines: list[str] = []
        for path, after in self.after.items():
            lines += difflib.unified_diff(
                self.before[path].decode(errors="replace").splitlines(keepends=True),
                after.decode(errors="replace").splitlines(keepends=True),
                f"a{path}",
                f"b{path}",
            )
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
