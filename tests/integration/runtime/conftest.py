"""Prefect's API of the installation that all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.prefect_api import PrefectApi
from tests.support.stack import Stack


@pytest.fixture
def api(installation: Stack) -> Iterator[PrefectApi]:
    """Prefect's API of the shared installation."""
    api = PrefectApi(installation.api_url)
    yield api
    api.close()
