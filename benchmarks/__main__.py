"""``make bench``: measures and writes ``benchmarks/results.md``."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import (
    bulk,
    bulk_acme,
    bulk_trouble,
    bulk_workers,
    inventory,
    one_host,
    results,
    web_server,
)
from benchmarks.measure import machine
from benchmarks.options import Options

RESULTS = Path(__file__).with_name("results.md")
CHAPTERS: Mapping[str, Callable[[Options], str]] = {
    "web-server": lambda _: web_server.run(),
    "inventory": lambda _: inventory.run(),
    bulk.NAME: bulk.run,
    "one-host": lambda _: one_host.run(),
    bulk_workers.NAME: bulk_workers.run,
    bulk_acme.NAME: bulk_acme.run,
    bulk_trouble.NAME: bulk_trouble.run,
}
# An hour or more: only when asked for.
LONG = (bulk_workers.NAME, bulk_acme.NAME, bulk_trouble.NAME)


REDIS = {"no": (False,), "yes": (True,), "both": (False, True)}


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted(int(word) for word in text.split(",")))


def main() -> None:
    """Run the chapters asked for, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--only", choices=sorted(CHAPTERS), action="append")
    default = Options()
    parser.add_argument("--sizes", type=_numbers, default=default.sizes, metavar="N,N")
    parser.add_argument("--workers", type=_numbers, default=default.workers, metavar="N,N")
    parser.add_argument("--redis", choices=sorted(REDIS), default="both")
    parser.add_argument("--one-by-one", type=int, default=default.one_by_one, metavar="N")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where chapters are kept")
    given = parser.parse_args()
    file = given.results
    chosen = given.only or [name for name in CHAPTERS if name not in LONG]
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    for name in chosen:
        options = Options(
            sizes=given.sizes,
            workers=given.workers,
            redis=REDIS[given.redis],
            one_by_one=given.one_by_one,
            before=file.read_text() if file.exists() else "",
        )
        made = results.chapter(name, CHAPTERS[name](options), machine=machine(), day=day)
        # After each, so that a chapter that fails does not take the others with it.
        before = file.read_text() if file.exists() else ""
        file.write_text(results.merged(before, {name: made}, list(CHAPTERS)))


if __name__ == "__main__":
    main()
