"""``make bench``: measures and writes ``benchmarks/results.md``."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from benchmarks import bulk, inventory, web_server
from benchmarks.measure import machine

RESULTS = Path(__file__).with_name("results.md")
CHAPTERS = {
    "web-server": web_server.run,
    "inventory": inventory.run,
    "bulk": bulk.run,
    "bulk-large": bulk.large,
}
# An hour or more: only when asked for.
LONG = ("bulk-large",)

_HEAD = """# Benchmarks

Written by `make bench`; every figure below comes from that one run. Read the ratios: absolute
figures vary with the machine and with what else it does.

- command: `make bench`{only}
- machine: {machine}
- date: {date}

"""


def main() -> None:
    """Run the chapters asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", choices=sorted(CHAPTERS), action="append")
    only = parser.parse_args().only
    chosen = only or [name for name in CHAPTERS if name not in LONG]
    text = "\n".join(CHAPTERS[name]() for name in chosen)
    head = _HEAD.format(
        only=f" (only {', '.join(only)})" if only else "",
        machine=machine(),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    RESULTS.write_text(head + text)


if __name__ == "__main__":
    main()
