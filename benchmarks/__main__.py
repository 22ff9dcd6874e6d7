"""``make bench``: measures and writes ``benchmarks/results.md``."""

from __future__ import annotations

import argparse
import datetime
from pathlib import Path

from benchmarks import bulk, inventory, one_host, results, web_server
from benchmarks.measure import machine

RESULTS = Path(__file__).with_name("results.md")
CHAPTERS = {
    "web-server": web_server.run,
    "inventory": inventory.run,
    "bulk": bulk.run,
    "one-host": one_host.run,
    "bulk-large": bulk.large,
}
# An hour or more: only when asked for.
LONG = ("bulk-large",)


def main() -> None:
    """Run the chapters asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", choices=sorted(CHAPTERS), action="append")
    only = parser.parse_args().only
    chosen = only or [name for name in CHAPTERS if name not in LONG]
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in chosen:
        made = results.chapter(name, CHAPTERS[name](), machine=machine(), day=day)
        # After each, so that a chapter that fails does not take the others with it.
        before = RESULTS.read_text() if RESULTS.exists() else ""
        RESULTS.write_text(results.merged(before, {name: made}, list(CHAPTERS)))


if __name__ == "__main__":
    main()
