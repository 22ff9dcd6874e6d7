"""Who reads Prefect's database, or has its password, gets no secret of a connector."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
import yaml

from certrail.postgres import program
from tests.support.stack import Stack, cli

MARK = "LabSecretThatNobodyMaySee"
TSIG = base64.b64encode(f"{MARK}-tsig-key-0123456789".encode()).decode()
HOOK = "whsec_" + base64.b64encode(f"{MARK}-hook-key-0123456789".encode()).decode()
SECRETS = {
    "MAIL": f"{MARK}-mail",
    "HOOK": HOOK,
    "CHAT": f"json://me:{MARK}-chat@example.test",
    "PDNS": f"{MARK}-pdns",
    "TSIG": TSIG,
    "VAULT": f"{MARK}-vault",
    "PUT": f"{MARK}-put",
}
CONNECTORS: list[dict[str, Any]] = [
    {
        "name": "sec-mail",
        "type": "notifier-smtp",
        "host": "mail.example.test",
        "username": "me",
        "password": "${MAIL}",
        "sender": "a@example.test",
    },
    {
        "name": "sec-hook",
        "type": "notifier-webhook",
        "url": "https://example.test/",
        "secret": "${HOOK}",
    },
    {"name": "sec-chat", "type": "notifier-apprise", "url": "${CHAT}"},
    {
        "name": "sec-pdns",
        "type": "dns-powerdns",
        "url": "http://127.0.0.1:9",
        "api_key": "${PDNS}",
        "nameservers": ["127.0.0.1:53"],
    },
    {
        "name": "sec-ns",
        "type": "dns-rfc2136",
        "server": "127.0.0.1",
        "key_name": "k.",
        "key_secret": "${TSIG}",
    },
    {
        "name": "sec-vault",
        "type": "delivery-vault-kv",
        "url": "http://127.0.0.1:9",
        "token": "${VAULT}",
    },
]


@pytest.fixture(scope="module")
def stored(installation: Stack, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """The installation, with connectors that came by a file and by a command."""
    path = tmp_path_factory.mktemp("secrets") / "connectors.yaml"
    path.write_text(yaml.safe_dump({"connectors": CONNECTORS}))
    env = {**installation.env, **SECRETS}
    done = cli("apply", "-f", str(path), env=env)
    assert done.returncode == 0, done.stderr
    done = cli(
        "connector",
        "add",
        "delivery-http-put",
        "sec-put",
        "--set",
        "url=http://127.0.0.1:9",
        "--set",
        "username=me",
        "--set",
        f"password={SECRETS['PUT']}",
        env=env,
    )
    assert done.returncode == 0, done.stderr
    return installation


def test_the_api_gives_out_no_secret(stored: Stack) -> None:
    """One password opens Prefect's whole API, blocks with their secrets included."""
    documents: list[dict[str, Any]] = []
    while True:
        page = httpx.post(
            f"{stored.api_url}/block_documents/filter",
            json={"include_secrets": True, "limit": 200, "offset": len(documents)},
            timeout=30,
        )
        page.raise_for_status()
        found = page.json()
        documents += found
        if len(found) < 200:
            break
    text = str(documents)

    ours = [one for one in documents if str(one["name"]).startswith("sec-")]
    assert len(ours) == len(CONNECTORS) + 1
    assert all("sealed:v1:" in str(one["data"]) for one in ours)
    _must_hold_none(text)


def test_a_dump_of_prefects_database_holds_no_secret(stored: Stack, tmp_path: Path) -> None:
    """Nor one of ours: neither by itself, nor both together with Prefect's own key."""
    for name in ("prefect", "certrail"):
        url = urlsplit(stored.database_url)
        out = tmp_path / f"{name}.sql"
        subprocess.run(
            [str(program("pg_dump")), f"--file={out}", name],
            env={
                "PATH": "/usr/bin:/bin",
                "PGHOST": url.hostname or "",
                "PGPORT": str(url.port),
                "PGUSER": unquote(url.username or ""),
                "PGPASSWORD": unquote(url.password or ""),
            },
            check=True,
        )
        text = out.read_text()
        assert "sec-mail" in text
        _must_hold_none(text)


def test_no_log_and_no_process_holds_a_secret(stored: Stack) -> None:
    """They are opened in the worker's memory only."""
    for path in (stored.data_dir / "logs").glob("*.log*"):
        _must_hold_none(path.read_text(errors="replace"))
    _must_hold_none(stored.said())


def _must_hold_none(text: str) -> None:
    for secret in SECRETS.values():
        assert secret not in text
        assert base64.b64encode(secret.encode()).decode() not in text
    assert MARK not in text
