"""Which of Prefect's commands make work pools: one, and no other program."""

from __future__ import annotations

import pytest

from deployments.plugin import is_deploying


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["/opt/certrail/bin/prefect", "--no-prompt", "deploy", "--all"], True),
        (["-m", "deploy", "--all"], True),
        (["prefect", "server", "start"], False),
        (["prefect", "deployment", "ls"], False),
        (["/opt/certrail/bin/certrail", "deploy"], False),
        ([], False),
    ],
)
def test_only_deploying_makes_pools(command: list[str], expected: bool) -> None:
    """The hook runs before every command that is given in the folder."""
    assert is_deploying(command) == expected
