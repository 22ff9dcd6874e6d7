"""The connector block with the account in the inventory database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import SecretStr, ValidationError

from blocks.ca.acme import AcmeCa
from certrail.errors import InvalidRequest, KeyUnavailable
from certrail.model import subject_names
from certrail.store.acme_accounts import DatabaseAccountKeeper
from tests.support.acme_client import Publisher, issue
from tests.support.pebble import Pebble


def test_a_stored_connector_issues(
    database_url: str, shared_pebble: Pebble, dns: Publisher, name: str
) -> None:
    """Settings from the block, the account sealed in the database, one account for all tasks."""
    block = AcmeCa(
        directory_url=shared_pebble.directory_url,
        contact="ops@example.test, web@example.test",
        ca_bundle=str(shared_pebble.ca_bundle),
    )
    before = shared_pebble.account_count()

    def ensure(_: int) -> str:
        with block.connect() as ca:
            return ca.ensure_account().url

    with ThreadPoolExecutor(6) as threads:
        urls = set(threads.map(ensure, range(12)))
    with block.connect() as ca:
        chain = issue(ca, [name], dns)
    stored = DatabaseAccountKeeper(block.label, block.directory_url).load()

    assert subject_names(chain.leaf) == (name,)
    assert shared_pebble.account_count() == before + 1
    assert stored is not None
    assert urls == {stored.url}
    assert stored.contact == ("mailto:ops@example.test", "mailto:web@example.test")


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="no directory"),
        pytest.param({"directory_url": "http://ca.example.test/dir"}, id="plain http"),
        pytest.param({"directory_url": "ca.example.test"}, id="no URL"),
        pytest.param({"directory_url": "https://ca.test/d", "contact": "ops"}, id="no address"),
        pytest.param(
            {"directory_url": "https://ca.test/d", "allowed_origins": ["http://b.test"]},
            id="plain http allowed",
        ),
        pytest.param({"directory_url": "https://ca.test/d", "directry": ""}, id="misspelt field"),
    ],
)
def test_settings_that_cannot_work_are_refused_when_entered(settings: dict[str, object]) -> None:
    """Not weeks later, when the first renewal is due."""
    with pytest.raises(ValidationError):
        AcmeCa(**settings)


def test_half_of_the_external_account_is_refused(database_url: str) -> None:
    """The pair belongs together."""
    block = AcmeCa(directory_url="https://ca.example.test/dir", eab_kid="kid")

    with pytest.raises(InvalidRequest, match="eab_hmac_key"), block.connect():
        pass


def test_the_hmac_key_can_be_a_reference_and_never_prints(database_url: str) -> None:
    """Connector secrets are references or sealed."""
    block = AcmeCa(
        directory_url="https://ca.example.test/dir",
        eab_kid="kid",
        eab_hmac_key=SecretStr("env:NO_SUCH_VARIABLE"),
    )

    assert "NO_SUCH_VARIABLE" not in repr(block)
    with pytest.raises(KeyUnavailable, match="NO_SUCH_VARIABLE"), block.connect():
        pass
