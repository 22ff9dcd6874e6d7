"""``python -m deployments.docs [--check]``."""

from __future__ import annotations

import argparse
import sys

from deployments.docs.pages import ROOT, begun, stale


def main() -> int:
    """Write or check the pages. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.docs", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if stale")
    check = parser.parse_args().check
    new = {} if check else begun()
    for path, text in new.items():
        path.write_text(text)
        sys.stdout.write(f"begun, write its sections: {path.relative_to(ROOT)}\n")
    found = stale()
    for path, text in found.items():
        sys.stdout.write(f"{'stale' if check else 'written'}: {path.relative_to(ROOT)}\n")
        if not check:
            path.write_text(text)
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
