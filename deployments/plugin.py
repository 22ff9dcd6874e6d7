"""What ``prefect deploy`` does first in this folder: make the pools that ``prefect.yaml`` names.

Prefect's command refuses a deployment whose pool does not exist, and has no
step before that check. Its startup hooks run before any command
(https://docs.prefect.io/v3/concepts/plugins); ``pyproject.toml`` switches them on for
commands that are given in this folder, and no other command does anything here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import PurePath

from prefect.plugins import HookContext, SetupResult, register_hook

# While Python imports the package that `python -m` names, this stands for the program.
_PROGRAMS = ("prefect", "-m")


def is_deploying(command: Sequence[str]) -> bool:
    """Return whether *command*, a program with its arguments, is ``prefect deploy``."""
    program, *arguments = command or ("",)
    return PurePath(program).name in _PROGRAMS and "deploy" in arguments


@register_hook
async def setup_environment(*, ctx: HookContext) -> SetupResult | None:
    """Make the missing pools; Prefect logs what goes wrong, and goes on to its own check."""
    if ctx.api_url is not None and is_deploying(sys.argv):
        # Not above: every command in this folder imports this module.
        from deployments.bootstrap import make_pools

        await make_pools()
    return None
