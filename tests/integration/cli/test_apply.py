"""`certrail apply` against a running installation."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from certrail.keys.seal import SECRET_PURPOSE, Keyring, is_sealed
from certrail.settings import read_run_file
from tests.integration.cli.conftest import NAMES, Shell
from tests.support.prefect_api import PrefectApi


@pytest.fixture
def stored(shell: Shell) -> Any:
    """Read what Prefect holds of a connector."""
    api = PrefectApi(shell.stack.api_url)

    def stored(slug: str, name: str) -> dict[str, Any]:
        path = f"/block_types/slug/{slug}/block_documents/name/{name}?include_secrets=true"
        data: dict[str, Any] = api.get(path)["data"]
        return data

    yield stored
    api.close()


def test_applying_again_changes_nothing(shell: Shell) -> None:
    """It is run by every pipeline, and must not restart or re-seal anything."""
    path = shell.write("again.yaml", shell.configuration())
    # Other tests change endpoints of it.
    shell("apply", "-f", str(path))

    said = shell("apply", "-f", str(path)).stdout

    assert said.splitlines() == [
        "3 connectors unchanged",
        "1 profile unchanged",
        f"{len(NAMES)} endpoints unchanged",
    ]


def test_secrets_are_sealed_before_they_leave_the_process(shell: Shell, stored: Any) -> None:
    """Whoever has Prefect's API password reads every block in the clear."""
    password = shell.servers.dns.api_key
    path = shell.write("secrets.yaml", shell.configuration())

    data = stored("dns-powerdns", "cli-ns")

    assert is_sealed(data["api_key"])
    assert password not in str(data)
    found = _installation_key(shell)
    assert found.open(data["api_key"], SECRET_PURPOSE).decode() == password
    assert password not in shell("apply", "-f", str(path), "--json").stdout


def _installation_key(shell: Shell) -> Keyring:
    found = read_run_file(shell.stack.data_dir)
    assert found is not None
    return Keyring.from_file(Path(found.key_file))


def test_references_to_secrets_stay_references(shell: Shell, stored: Any) -> None:
    """`env:` and `file:` are opened on the worker, and only there."""
    connectors = [
        {"name": "cli-by-env", "type": "host-local", "sudo": True, "sudo_password": "env:NOT_SET"},
        {"name": "cli-by-file", "type": "host-local", "sudo": True, "sudo_password": "file:./pw"},
    ]
    path = shell.write("references.yaml", {"connectors": connectors})
    shell("apply", "-f", str(path))

    assert stored("host-local", "cli-by-env")["sudo_password"] == "env:NOT_SET"
    assert stored("host-local", "cli-by-file")["sudo_password"] == f"file:{path.parent}/pw"


def test_a_dry_run_tells_and_does_nothing(shell: Shell) -> None:
    """The same words as the real one, and nothing in the inventory."""
    configuration = shell.configuration()
    configuration["profiles"][0]["renew"] = {"at_lifetime_fraction": 0.5}
    configuration["connectors"][1]["api_key"] = "another"
    configuration["endpoints"] = [{"location": "dry.cli.example.test:443"}]
    path = shell.write("dry.yaml", configuration)

    said = shell("apply", "-f", str(path), "--dry-run").stdout

    assert said.splitlines() == [
        "connector cli-ns: api_key changed (secret)",
        "profile cli-public-web: renew.at_lifetime_fraction 0.67 → 0.5",
        "endpoint dry.cli.example.test:443 created",
        "2 connectors unchanged",
        "dry run: nothing was changed",
    ]
    shell("endpoint", "show", "dry.cli.example.test:443", code=2)
    assert (
        "unchanged"
        in shell("apply", "-f", str(shell.write("w.yaml", shell.configuration()))).stdout
    )


def test_a_secret_from_the_environment(shell: Shell, stored: Any) -> None:
    """The file can be in a repository, the secret is not."""
    connector = {"name": "cli-env", "type": "host-local", "sudo_password": "${CLI_TEST_SECRET}"}
    path = shell.write("env.yaml", {"connectors": [connector]})
    missing = shell("apply", "-f", str(path), code=2).stderr
    assert f"{path}:4: the environment variable CLI_TEST_SECRET is not set" in missing

    first, second = {"CLI_TEST_SECRET": "first"}, {"CLI_TEST_SECRET": "second"}
    assert "created" in shell("apply", "-f", str(path), env=first).stdout
    before = stored("host-local", "cli-env")["sudo_password"]
    assert "1 connector unchanged" in shell("apply", "-f", str(path), env=first).stdout
    assert stored("host-local", "cli-env")["sudo_password"] == before
    said = shell("apply", "-f", str(path), env=second).stdout

    assert said == "connector cli-env: sudo_password changed (secret)\n"
    assert stored("host-local", "cli-env")["sudo_password"] != before


def test_one_mistake_and_nothing_is_applied(shell: Shell) -> None:
    """A half-applied file is worse than none: the connector before the mistake is not made."""
    configuration = copy.deepcopy(shell.configuration())
    configuration["connectors"].append({"name": "cli-never", "type": "host-local"})
    configuration["profiles"][0]["validation"]["dns"] = "cli-nss"
    path = shell.write("mistake.yaml", configuration)

    said = shell("apply", "-f", str(path), code=2).stderr

    line = path.read_text().splitlines().index("    dns: cli-nss") + 1
    assert f"{path}:{line}: profiles[0].validation.dns: there is no connector 'cli-nss'" in said
    assert "did you mean 'cli-ns'?" in said
    names = {one["name"] for one in shell.json("connector", "list")}
    assert "cli-never" not in names
    assert "cli-pebble" in names


@pytest.mark.parametrize(
    ("content", "told"),
    [("a: [", "not YAML"), ("\xff\xfe", "not UTF-8"), (None, "cannot read")],
)
def test_a_file_that_cannot_be_read(
    content: str | None, told: str, shell: Shell, tmp_path: Path
) -> None:
    """The answer names the file."""
    path = tmp_path / "f.yaml"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))

    assert told in shell("apply", "-f", str(path), code=2).stderr


def test_prefect_that_does_not_answer(shell: Shell) -> None:
    """Exit code 3, and nothing is half done."""
    path = shell.write("gone.yaml", {"connectors": [{"name": "cli-gone", "type": "host-local"}]})
    said = shell("apply", "-f", str(path), code=3, env=shell.without_prefect()).stderr

    assert "Prefect's API at http://127.0.0.1:9/api does not answer" in said
    assert "cli-gone" not in {one["name"] for one in shell.json("connector", "list")}


def test_a_database_that_does_not_answer(shell: Shell) -> None:
    """Exit code 3 and no password in the message."""
    url = "postgresql://certrail:hunter2@127.0.0.1:9/certrail"
    said = shell("endpoint", "list", code=3, env={"CERTRAIL_DATABASE_URL": url}).stderr

    assert "the inventory database does not answer" in said
    assert "hunter2" not in said
