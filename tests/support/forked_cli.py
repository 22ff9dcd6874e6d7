"""The command line in a process of its own for each call, without importing it anew each time.

``certrail`` needs seconds of CPU to import Prefect. A template process does
that once and forks for each call; the fork runs the same code as the command
and ends with its exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from tests.support.process import die_with_parent

_ROOT = Path(__file__).resolve().parents[2]


class ForkedCli:
    """Runs ``certrail`` in the environment that the template was started with."""

    def __init__(self, template: subprocess.Popen[str]) -> None:
        self._template = template

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``certrail`` with *arguments*; the caller looks at the result."""
        assert self._template.stdin is not None
        assert self._template.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            call = {"arguments": arguments, "folder": folder}
            self._template.stdin.write(json.dumps(call) + "\n")
            self._template.stdin.flush()
            code = int(self._template.stdout.readline())
            out, err = (Path(folder, name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(arguments, code, out, err)


@contextmanager
def forked_cli(env: Mapping[str, str]) -> Iterator[ForkedCli]:
    """Start the template process in the environment *env*."""
    template = subprocess.Popen(
        [sys.executable, "-m", "tests.support.forked_cli"],
        env={**env, "PYTHONPATH": str(_ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    try:
        yield ForkedCli(template)
    finally:
        assert template.stdin is not None
        assert template.stdout is not None
        template.stdin.close()
        template.wait(10)
        template.stdout.close()


def _serve() -> None:
    from certrail.cli import _prefect, main

    # Only modules are loaded here; what they find out is found out anew in each fork.
    for name in main.COMMANDS:
        main.cli.get_command(click.Context(main.cli), name)
    _prefect.installation()
    _prefect.block_types()
    for line in sys.stdin:
        call = json.loads(line)
        child = os.fork()
        if child == 0:
            folder = Path(call["folder"])
            nothing = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nothing, 0)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
            code = 70
            try:
                code = main.run(call["arguments"])
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
