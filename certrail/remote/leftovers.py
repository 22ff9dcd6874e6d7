"""Half-written files that broken connections and killed processes left beside the real ones.

A file is replaced by writing a new one beside it and renaming that. Whoever is
cut off in between leaves the new one behind, with a name that
:func:`temporary_beside` made; it can hold a private key.
"""

from __future__ import annotations

import posixpath
from contextlib import suppress

from certrail.connectors import Host
from certrail.errors import NotFound
from certrail.log import effect
from certrail.remote.posix_paths import is_temporary, readable


def remove_unfinished(host: Host, *directories: str) -> None:
    """Remove what was left in *directories*; one that is absent is quiet.

    The caller holds the lock under which files are written there. Whoever writes
    without it loses only a try: the rename finds nothing, and changes nothing.
    """
    for directory in dict.fromkeys(directories):
        with suppress(NotFound):
            for name in host.list_directory(directory):
                if is_temporary(name):
                    path = posixpath.join(directory, name)
                    host.remove(path)
                    effect("file.tidy", host=host.name, path=readable(path))
