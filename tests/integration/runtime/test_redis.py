"""A Prefect server of several processes needs a Redis."""

from __future__ import annotations

from pathlib import Path

from tests.support.stack import cli, environment


def test_several_processes_without_redis_are_refused(tmp_path: Path) -> None:
    """Each would record its own half."""
    done = cli("up", "--port", "0", "--server-processes", "2", env=environment(tmp_path))

    assert done.returncode == 2
    assert "need a Redis" in done.stderr
    assert "--redis" in done.stderr
