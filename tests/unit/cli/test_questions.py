"""What ``certrail connector add`` asks: every setting of every type there is."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner
from pydantic import SecretStr

from certrail.cli import _questions
from certrail.cli._prefect_blocks import BlockField, block_types

TYPES = block_types()
SECRET = "typed-and-never-shown"
# What one types where a setting has no default, or is needed all the same.
ANSWERS = {
    "url": "https://api.example.test",
    "vault_url": "https://shop.vault.azure.net",
    "directory_url": "https://ca.example.test/directory",
    "ca_arn": "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/" + "a" * 36,
    "organization_id": "12",
    "command": "/usr/local/bin/issue,--stdin",
    "profile_id": "36f011b7-5fa1-4c6d-83f3-ee59c4d54bb0",
    "ca_dir": "/var/lib/certrail/ca",
    "role": "web",
    "tenant_id": "00000000-0000-0000-0000-000000000001",
    "client_id": "00000000-0000-0000-0000-000000000002",
    "bucket": "certificates",
    "server": "ns1.example.test",
    "key_name": "certrail",
    "host": "lb.example.test",
    "username": "certrail",
    "sender": "certrail@example.test",
    "socket": "/run/haproxy/admin.sock",
    "address": "redis.example.test",
}
PARTICULAR = {
    "notifier-apprise": {"url": "json://chat.example.test/hook"},
    "notifier-webhook": {"secret": "whsec_" + "QUJD" * 8},
    "ca-vault": {"token": SECRET},
    "target-haproxy": {"host": "host-ssh/web01"},
    "target-redis": {"host": "host-ssh/web01"},
}


@pytest.mark.parametrize("slug", TYPES)
def test_every_setting_of_a_type_is_asked_for(slug: str) -> None:
    """With what it means; Enter takes a default; what comes of it is a connector."""
    kind = TYPES[slug]

    given, shown = asked(slug, [_answer(slug, field) for field in kind.fields.values()])

    told = [f"\n{field.description}\n{field.name}" for field in kind.fields.values()]
    places = [shown.find(one) for one in told]
    assert -1 not in places
    assert places == sorted(places)
    assert {name for name, field in kind.fields.items() if field.required} <= set(given)
    block = kind.cls(**given)
    for name, value in given.items():
        if value == SECRET:
            found = getattr(block, name)
            assert isinstance(found, SecretStr)
            assert found.get_secret_value() == SECRET


def test_answers_that_do_not_go_together_are_asked_for_again() -> None:
    """Nobody wants to type ten of them once more for the one that was missing."""
    names = list(TYPES["ca-vault"].fields)
    first = dict.fromkeys(names, "") | {"url": ANSWERS["url"], "role": "web", "role_id": "me"}
    second = dict.fromkeys(names, "") | {"role_id": "-", "token": SECRET}

    given, shown = asked("ca-vault", [*first.values(), *second.values()])

    assert "AppRole needs both role_id and secret_id\nOnce more" in shown
    assert "role [web]: " in shown
    assert given == {"url": ANSWERS["url"], "role": "web", "token": SECRET}


def asked(slug: str, typed: list[str]) -> tuple[dict[str, Any], str]:
    """Return what became of what was *typed*, and what was shown."""
    given: dict[str, Any] = {}

    @click.command()
    def ask() -> None:
        given.update(_questions.asked(TYPES[slug], {}, all_of_them=True))

    done = CliRunner().invoke(ask, input="".join(f"{line}\n" for line in typed))
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    return given, done.output


def _answer(slug: str, field: BlockField) -> str:
    particular = PARTICULAR.get(slug, {})
    if field.name in particular:
        return particular[field.name]
    if not field.required:
        return ""
    return SECRET if field.secret else ANSWERS[field.name]
