"""The command line against a whole installation and a world of real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.stack import Stack, cli
from tests.support.world import World, world

_SITES = ("www", "bad", "cancelled", "wait", "agree")
_PAGE_SITES = (
    "form",
    "refused",
    "later",
    "pressed",
    "form-cancelled",
    "back",
    "blocks",
    "settled",
    "untold",
    "forgotten",
)
NAMES = [f"{name}.cli.example.test" for name in (*_SITES, *_PAGE_SITES)]


class Shell:
    """A shell of the account that runs the installation.

    Attributes:
        stack: the installation.
        servers: what is outside.
    """

    def __init__(self, stack: Stack, servers: World) -> None:
        self.stack = stack
        self.servers = servers

    def __call__(
        self, *arguments: str, code: int = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``certrail``; it has to end with *code* and without a traceback.

        With *env*, variables beside those of the installation, it is a new process.
        """
        own = cli(*arguments, env={**self.stack.env, **env}) if env else None
        done = own or self.stack.cli(*arguments)
        assert done.returncode == code, f"{arguments}: {done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run ``certrail … --json`` and return what it printed."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def without_prefect(self) -> dict[str, str]:
        """Return variables that lead to the database, but to no Prefect server."""
        return {
            "PREFECT_API_URL": "http://127.0.0.1:9/api",
            "CERTRAIL_DATABASE_URL": self.stack.database_url,
        }

    def configuration(self) -> dict[str, Any]:
        """Return a file for the world, with names that no other test uses."""
        text = yaml.safe_dump(self.servers.configuration(), sort_keys=False)
        for name in ("pebble", "ns", "web01", "public-web"):
            for before in (": ", "- "):
                text = text.replace(f"{before}{name}\n", f"{before}cli-{name}\n")
        found: dict[str, Any] = yaml.safe_load(text)
        return found

    def write(self, name: str, configuration: object) -> Path:
        """Write a configuration file and return its path."""
        path = self.servers.folder / name
        path.write_text(yaml.safe_dump(configuration, sort_keys=False))
        return path

    def location(self, name: str) -> str:
        """Return the location of one of the world's sites."""
        return f"{name}.cli.example.test:443"


@pytest.fixture(scope="session")
def shell(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell, with the world's configuration applied."""
    with world(tmp_path_factory.mktemp("world"), NAMES) as servers:
        there = Shell(installation, servers)
        there("apply", "-f", str(there.write("world.yaml", there.configuration())))
        yield there
