"""Whose wish a request is, as a condition: the renewal policy's or a person's."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, or_

from certrail.tracker import AUTOMATIC_REASONS


def is_automatic(reason_code: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return whether the renewal policy made the request of that reason, not a person."""
    return or_(*(reason_code.startswith(begin) for begin in AUTOMATIC_REASONS))
