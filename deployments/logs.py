"""The log of a worker: plain lines, none that says once more what was said, no false errors.

What a CA, a host or a device said stays within its line (:func:`certrail.log.words_of_others`).

Prefect's console handler lays out and colours each line for a terminal, at a
price that a bulk job feels; a worker's log goes into a file or the journal.
Its line ``Finished in state Completed('…')`` for a task repeats the line of
the step. And every end but ``Completed`` is an error to Prefect, also that of a
run which only waits and comes back.
"""

from __future__ import annotations

import logging

from prefect.logging.handlers import PrefectConsoleHandler

from certrail.log import words_of_others

_REPEATED = (
    "Finished in state Completed(",
    "Finished in state Skipped(",
    # A step that failed ends with "Finished in state Failed", which has the same text.
    "Task run failed with state: ",
)
_WAITS = ("type=SCHEDULED)", "type=PAUSED)")


def simplify() -> None:
    """Apply this to the loggers that Prefect has set up; safe to call again."""
    known = logging.root.manager.loggerDict.values()
    for logger in (logging.root, *(one for one in known if isinstance(one, logging.Logger))):
        for handler in list(logger.handlers):
            if isinstance(handler, PrefectConsoleHandler):
                logger.removeHandler(handler)
                logger.addHandler(_plain(handler))
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logging.getLogger(name).addFilter(words_of_others)
    logging.getLogger("prefect.task_runs").addFilter(_says_something_new)
    logging.getLogger("prefect.flow_runs").addFilter(_waiting_is_no_error)


def _plain(handler: PrefectConsoleHandler) -> logging.Handler:
    plain = logging.StreamHandler(handler.console.file)
    plain.setLevel(handler.level)
    plain.setFormatter(handler.formatter)
    for each in handler.filters:
        plain.addFilter(each)
    return plain


def _says_something_new(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_REPEATED)


def _waiting_is_no_error(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    if text.startswith("Finished in state ") and text.endswith(_WAITS):
        record.levelno, record.levelname = logging.INFO, "INFO"
    return True
