"""Tests of a contract that a case declares not to take part in.

A test that has nothing to test there is left out and counted as such; it
would be green otherwise, and say nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

MEANING = (
    "needs(*what): left out for a `case` that lacks one of these: "
    "it is in the case's `lacks`, or the case's field of that name is empty"
)


def is_lacking(item: pytest.Item) -> bool:
    """Return whether *item* tests a case that lacks what the test needs."""
    case: Any = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    needed = [one for mark in item.iter_markers("needs") for one in mark.args]
    return case is not None and any(
        one in case.lacks or not getattr(case, one, True) for one in needed
    )
