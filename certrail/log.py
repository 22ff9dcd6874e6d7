"""How this project logs: one line per effect, fields rather than prose."""

from __future__ import annotations

import logging

logger = logging.getLogger("certrail")

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), 127, *range(128, 160))}
# Line and paragraph separators, and what turns the direction of a text around.
_CONTROL |= {code: f"\\u{code:04x}" for code in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def plain(text: object) -> str:
    """Return *text* on one line with control characters made visible.

    Remote values go into logs and onto terminals; an escape sequence or a
    line break in one must not forge a line or drive the terminal.
    """
    return str(text).translate(_CONTROL)


def effect(action: str, **fields: object) -> None:
    """Log one thing done to the outside world, as ``action key=value …`` at INFO."""
    text = " ".join(f"{key}={plain(value)}" for key, value in fields.items())
    logger.info("%s %s", action, text)


def words_of_others(record: logging.LogRecord) -> bool:
    """Make plain what a line was given to tell; a filter that lets every line through."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            one if isinstance(one, int | float) else plain(one) for one in record.args
        )
    return True


logger.addFilter(words_of_others)
