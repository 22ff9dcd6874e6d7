"""The ``certrail`` command: what there is, and how it ends."""

from __future__ import annotations

import os
import sys
import warnings

import click

from certrail import __version__
from certrail.cli import _interrupt
from certrail.cli._errors import DONE, FAILED, tell
from certrail.cli._lazy import LazyGroup
from certrail.cli._output import examples
from certrail.heap import without_core_files

COMMANDS = {
    "up": ("certrail.cli.up:up", "Run everything on this machine."),
    "worker": ("certrail.cli.worker:worker", "Run a sensor or an agent on another machine."),
    "doctor": ("certrail.cli.doctor:doctor", "Check the installation; say what to do."),
    "apply": ("certrail.cli.apply:apply", "Create or update what a configuration file says."),
    "endpoint": ("certrail.cli.endpoint:endpoint", "List, show, import and scan endpoints."),
    "dashboard": ("certrail.cli.dashboard:dashboard", "Show what needs attention and how it goes."),
    "report": ("certrail.cli.report:report", "Make, save and schedule reports."),
    "view": ("certrail.cli.view:view", "Save, list and delete selections of endpoints."),
    "request": ("certrail.cli.request:request", "Start, follow, retry and cancel requests."),
    "job": ("certrail.cli.job:job", "Automate many endpoints at once."),
    "executor": ("certrail.cli.executor:executor", "List agents and sensors; forget one."),
    "connector": ("certrail.cli.connector:connector", "List, check and add connectors."),
    "notify": ("certrail.cli.notify:notify", "Test, preview and follow notifications."),
    "backup": ("certrail.cli.backup:backup", "Back up both databases while everything runs."),
    "restore": ("certrail.cli.backup:restore", "Put a backup into a new data directory."),
    "key": ("certrail.cli.key:key", "List, rotate and retire the sealing keys."),
    "audit": ("certrail.cli.audit:audit", "Show, export and verify the audit trail."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "certrail up",
        "certrail apply -f certificates.yaml",
        "certrail request start www.example.org:443 --wait",
        "certrail endpoint list --view needs-attention",
    ),
)
@click.version_option(__version__, "-V", "--version", message="certrail %(version)s")
def cli() -> None:
    """Certificate automation that shows, step by step, where every request stands.

    \b
    Exit codes: 0 done, 1 the work failed, 2 the call was wrong,
    3 something that is needed cannot be reached, 130 interrupted.
    """
    # The command itself is imported by now, and about to begin.
    _interrupt.is_raised()


def run_alone(arguments: list[str]) -> int:
    """Run the command line with *arguments* as all that this process does; returns its code."""
    if not sys.warnoptions:
        # Remarks of libraries to their programmers are of no use to people here.
        warnings.simplefilter("ignore")
    return run(arguments)


def run(arguments: list[str]) -> int:
    """Run the command line with *arguments* and return its exit code."""
    without_core_files()
    try:
        result = cli.main(arguments, prog_name="certrail", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as exc:
        return exc.exit_code
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return _interrupt.CODE
    except BrokenPipeError:
        # Whoever read us has enough (`certrail endpoint list | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED if exc.code else DONE
    except Exception as exc:  # noqa: BLE001 - the last line of defence: no traceback for people
        return tell(exc)
    return result if isinstance(result, int) else DONE
