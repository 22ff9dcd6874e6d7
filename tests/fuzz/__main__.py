"""Coverage-guided fuzzing of all targets or of one: ``python -m tests.fuzz --seconds 60``.

What breaks something is kept as a file in the folder and named; give that file
as ``--input`` to see it again. Atheris instruments what is imported here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["certrail", "blocks"], enable_loader_override=False):
    from tests.fuzz.targets import TARGETS, Target, attempt


def main() -> None:
    """Run libFuzzer in this process; it ends the process itself."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--only", choices=[target.name for target in TARGETS])
    parser.add_argument("--runs", type=int, default=-1)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--input", type=Path, help="one file that broke something")
    given = parser.parse_args()
    chosen = [target for target in TARGETS if given.only in (None, target.name)]
    folder = given.folder or Path(tempfile.mkdtemp(prefix="certrail-fuzz-"))

    def one(data: bytes) -> None:
        # The first byte says which of them reads the rest.
        if data:
            attempt(chosen[data[0] % len(chosen)], data[1:])

    if given.input:
        one(given.input.read_bytes())
        return
    corpus = _corpus(folder / "corpus", chosen)
    atheris.Setup(
        [
            sys.argv[0],
            f"-runs={given.runs}",
            f"-max_total_time={given.seconds}",
            f"-seed={given.seed}",
            "-timeout=60",
            "-rss_limit_mb=4096",
            "-max_len=8192",
            "-print_final_stats=1",
            f"-artifact_prefix={folder}/",
            str(corpus),
        ],
        one,
    )
    atheris.Fuzz()


def _corpus(folder: Path, chosen: list[Target]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, target in enumerate(chosen):
        for index, seed in enumerate(target.seeds):
            if len(seed) < 8192:
                (folder / f"seed-{number}-{index}").write_bytes(bytes([number]) + seed)
    return folder


if __name__ == "__main__":
    main()
