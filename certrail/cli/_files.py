"""Writing files for people: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from certrail.errors import InvalidRequest


def write_whole(path: Path, content: bytes) -> None:
    """Write *content* beside *path*, then put it in its place.

    Raises:
        InvalidRequest: it cannot be written there.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            # As an ordinary new file has it; mkstemp keeps everybody else out.
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise InvalidRequest(
            f"{path} cannot be written: {exc.strerror or exc}",
            remedy="Name a file in a folder that you may write to.",
        ) from exc
