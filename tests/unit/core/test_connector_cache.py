"""Connectors are kept for some seconds, and asked for once by all who want them together."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.core import Block

from blocks._base import CaBlock, forget_connectors
from blocks.ca.local import LocalAuthority
from certrail.errors import NotFound

_MANY = 8
_HANGS = 60.0


def test_many_who_want_a_connector_at_once_ask_for_it_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each time is two calls and a dozen queries of the server of a bulk job."""
    block = LocalAuthority(ca_dir=str(tmp_path))
    asked: list[str] = []
    goes_on = threading.Event()

    def answer(reference: str, **_: Any) -> Block:
        asked.append(reference)
        assert goes_on.wait(_HANGS)
        return block

    monkeypatch.setattr(Block, "load", answer)
    forget_connectors()
    begun = threading.Barrier(_MANY + 1)

    def want() -> object:
        begun.wait(_HANGS)
        return CaBlock.named("ca-local/once")

    with ThreadPoolExecutor(_MANY) as pool:
        wanted = [pool.submit(want) for _ in range(_MANY)]
        begun.wait(_HANGS)
        goes_on.set()
        assert all(one.result(_HANGS) is block for one in wanted)
    assert asked == ["ca-local/once"]
    forget_connectors()


def test_one_that_failed_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    block = LocalAuthority(ca_dir=str(tmp_path))
    answers: list[Any] = [ValueError("none"), block]

    def answer(reference: str, **_: Any) -> Block:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Block)
        return found

    monkeypatch.setattr(Block, "load", answer)
    forget_connectors()
    with pytest.raises(NotFound, match="ca-local/again"):
        CaBlock.named("ca-local/again")
    assert CaBlock.named("ca-local/again") is block
    forget_connectors()
