"""Where ``certrail`` begins: the commands take a while to be imported, and Ctrl-C comes first."""

from __future__ import annotations

import sys

from certrail.cli import _interrupt


def main() -> None:
    """Run the command line and exit."""
    _interrupt.ends_at_once()
    from certrail.cli import commands

    code = commands.run_alone(sys.argv[1:])
    _interrupt.changes_nothing(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
