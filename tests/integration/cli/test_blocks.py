"""Connectors that are made and edited in Prefect's pages, asked as the pages ask the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cli.conftest import Shell
from tests.support.agreement import must_agree
from tests.support.prefect_api import PrefectApi

SECRET = "typed-into-the-page"


class BlockPages:
    """Prefect's pages under Blocks."""

    def __init__(self, api: PrefectApi) -> None:
        self._api = api

    def form(self, slug: str) -> dict[str, Any]:
        """Return the form of a type: its fields as the page shows them."""
        fields: dict[str, Any] = self._schema(slug)["fields"]
        return fields

    def create(self, slug: str, name: str, **settings: Any) -> str:
        """Press Create; return the block's id."""
        made = self._api.post(
            "/block_documents/",
            name=name,
            data=settings,
            block_type_id=self._api.get(f"/block_types/slug/{slug}")["id"],
            block_schema_id=self._schema(slug)["id"],
        )
        return str(made["id"])

    def edit(self, block: str, **changes: Any) -> None:
        """Open a block, change some fields, press Save: everything shown is sent back."""
        shown = self.shown(block)
        self._api.patch(
            f"/block_documents/{block}",
            data={**shown["data"], **changes},
            block_schema_id=shown["block_schema_id"],
            merge_existing_data=False,
        )

    def shown(self, block: str) -> dict[str, Any]:
        """Return what the block's page shows."""
        found: dict[str, Any] = self._api.get(f"/block_documents/{block}")
        return found

    def stored(self, block: str) -> dict[str, Any]:
        """Return the settings as who has the API's password gets them."""
        found: dict[str, Any] = self._api.get(f"/block_documents/{block}?include_secrets=true")
        return dict(found["data"])

    def delete(self, block: str) -> None:
        """Press Delete."""
        self._api.delete(f"/block_documents/{block}")

    def types(self) -> dict[str, str]:
        """Return the titles in the catalog by slug."""
        return {one["slug"]: one["name"] for one in self._api.post("/block_types/filter")}

    def _schema(self, slug: str) -> dict[str, Any]:
        kind = self._api.get(f"/block_types/slug/{slug}")["id"]
        schemas = self._api.post(
            "/block_schemas/filter", block_schemas={"block_type_id": {"any_": [kind]}}
        )
        newest: dict[str, Any] = schemas[0]
        return newest


@pytest.fixture
def api(shell: Shell) -> Iterator[PrefectApi]:
    """Prefect's API."""
    api = PrefectApi(shell.stack.api_url)
    yield api
    api.close()


@pytest.fixture
def pages(api: PrefectApi) -> BlockPages:
    """Prefect's pages under Blocks."""
    return BlockPages(api)


def _listed(shell: Shell, name: str) -> dict[str, Any]:
    (row,) = [row for row in shell.json("connector", "list") if row["name"] == name]
    return dict(row)


def test_the_catalog_offers_connectors_and_forms_for_people(pages: BlockPages) -> None:
    """What is in the catalog can be made; its fields have titles and texts, secrets are masked."""
    types = pages.types()

    assert not {"connectorblock", "cablock", "dnsblock", "hostblock", "targetblock"} & set(types)
    ours = {slug for slug in types if slug.startswith(("ca-", "dns-", "host-", "target-"))}
    assert all(types[slug].startswith("Certrail ") for slug in ours)
    form = pages.form("ca-acme")
    fields = form["properties"]
    assert fields["directory_url"]["title"] == "Directory URL"
    assert fields["eab_kid"]["title"] == "EAB key ID"
    assert all(field["description"] for field in fields.values())
    assert form["secret_fields"] == ["eab_hmac_key"]
    secret = fields["eab_hmac_key"]
    assert (secret["type"], secret["format"], secret["writeOnly"]) == ("string", "password", True)
    algorithm = pages.form("dns-rfc2136")["properties"]["algorithm"]
    assert "hmac-sha512" in algorithm["enum"]


def test_connectors_made_in_the_pages_carry_a_request(
    shell: Shell, pages: BlockPages, api: PrefectApi
) -> None:
    """The whole way: made by hand in Prefect, named in the file, used by a worker."""
    location = shell.location("blocks")
    settings = {one["type"]: dict(one) for one in shell.configuration()["connectors"]}
    names = {"ca-acme": "ui-pebble", "dns-powerdns": "ui-ns", "host-ssh": "ui-web"}
    blocks = {}
    for slug, name in names.items():
        typed = {k: v for k, v in settings[slug].items() if k not in ("name", "type")}
        blocks[slug] = pages.create(slug, name, **typed)
    configuration = {
        "profiles": [
            {
                **shell.configuration()["profiles"][0],
                "name": "ui-made",
                "ca": "ui-pebble",
                "validation": {"method": "dns-01", "dns": "ui-ns", "timeout_seconds": 30},
            }
        ],
        "endpoints": [
            {**endpoint, "profile": "ui-made", "target": "ui-web"}
            for endpoint in shell.configuration()["endpoints"]
            if endpoint["location"] == location
        ],
    }

    shell("apply", "-f", str(shell.write("ui-made.yaml", configuration)))

    key = settings["dns-powerdns"]["api_key"]
    assert pages.stored(blocks["dns-powerdns"])["api_key"].startswith("sealed:")
    checked = shell.json("connector", "check", *names.values())
    assert [one["ok"] for one in checked] == [True, True, True], checked
    done = shell.json("request", "start", location, "--wait")
    assert done["status"] == "automation-successful"
    must_agree(shell.stack, locations=[location])
    # Edited in the pages: what the page shows of a secret is not what is stored.
    shown = pages.shown(blocks["dns-powerdns"])["data"]["api_key"]
    assert set(shown) == {"*"}
    pages.edit(blocks["dns-powerdns"], ttl=120)
    stored = pages.stored(blocks["dns-powerdns"])
    assert stored["ttl"] == 120
    assert stored["api_key"].startswith("sealed:")
    (again,) = shell.json("connector", "check", "ui-ns")
    assert again["ok"], again
    pages.edit(blocks["dns-powerdns"], api_key=SECRET)
    (wrong,) = shell.json("connector", "check", "ui-ns", code=1)
    assert "key" in wrong["remedy"].lower()
    assert pages.stored(blocks["dns-powerdns"])["api_key"].startswith("sealed:")
    pages.edit(blocks["dns-powerdns"], api_key=key)
    assert shell.json("connector", "check", "ui-ns")[0]["ok"]
    shell("apply", "-f", str(shell.write("as-before.yaml", shell.configuration())))


def test_settings_that_cannot_be_used_are_told_field_by_field(
    shell: Shell, pages: BlockPages
) -> None:
    """The page saves anything; the file that refers to it is refused and says which field."""
    block = pages.create("ca-acme", "ui-wrong", directory_url="not an address", eab_hmac_key=SECRET)

    problem = _listed(shell, "ui-wrong")["problem"]

    assert "directory_url: " in problem
    assert SECRET not in problem
    (checked,) = shell.json("connector", "check", "ui-wrong", code=1)
    assert checked["message"] == problem
    assert "Blocks" in checked["remedy"]
    profile = {**shell.configuration()["profiles"][0], "name": "ui-refused", "ca": "ui-wrong"}
    refused = shell(
        "apply", "-f", str(shell.write("ui-wrong.yaml", {"profiles": [profile]})), code=2
    )
    assert "directory_url: " in refused.stderr
    pages.edit(block, directory_url="https://127.0.0.1:1/dir", directory_ulr="https://x/")
    assert "unknown field directory_ulr" in str(_listed(shell, "ui-wrong")["problem"])
    pages.delete(block)


def test_a_name_stands_for_one_connector(shell: Shell, pages: BlockPages) -> None:
    """Prefect lets blocks of two types have the same name; nobody can tell which is meant."""
    first = pages.create("host-local", "ui-twice")
    assert _listed(shell, "ui-twice")["problem"] is None
    second = pages.create("dns-powerdns", "ui-twice", url="http://127.0.0.1:1", api_key=SECRET)

    listed = shell("connector", "list")

    said = "2 connectors are called ui-twice in Prefect: dns-powerdns and host-local"
    assert said in listed.stderr
    (checked,) = shell.json("connector", "check", "ui-twice", code=1)
    assert checked["message"] == said
    profile = {**shell.configuration()["profiles"][0], "name": "ui-twice", "ca": "ui-twice"}
    refused = shell("apply", "-f", str(shell.write("twice.yaml", {"profiles": [profile]})), code=2)
    assert said in refused.stderr
    taken = shell("connector", "add", "host-local", "ui-twice", "--set", "sudo=false", code=2)
    assert "there is a connector ui-twice already" in taken.stderr
    # The first one is deleted: the name is free for the other type.
    pages.delete(first)
    assert (_listed(shell, "ui-twice")["type"], _listed(shell, "ui-twice")["problem"]) == (
        "dns-powerdns",
        None,
    )
    pages.delete(second)
    gone = _listed(shell, "ui-twice")["problem"]
    assert gone == "the settings of the connector ui-twice (dns-powerdns) are gone from Prefect"
