"""Words that several sentences for people share."""

from __future__ import annotations

import shlex


def counted(number: int, one: str, many: str = "") -> str:
    """Return *number* with what it counts, in the right form: "1 endpoint", "2 endpoints".

    Args:
        number: how many.
        one: the words for one of them; a verb may belong to them.
        many: the words for any other number; without it, *one* with an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def served_again(fingerprint: str | None) -> str:
    """Return what was done about a certificate that is not to stay.

    Args:
        fingerprint: of the one before it, in hexadecimal; None if there was none.
    """
    if not fingerprint:
        return "the new certificate was taken away again, there was none before"
    return f"{fingerprint[:16]}… put back"


def quoted(word: object) -> str:
    """Return *word* as it is typed in a command, so that a shell reads it as it is.

    Names of jobs may hold blanks, locations brackets and asterisks.
    """
    return shlex.quote(str(word))
