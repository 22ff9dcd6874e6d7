"""Where this installation keeps things and how it is reached.

Values come from the environment (``CERTRAIL_*``), else from ``run.json``,
which ``certrail up`` writes into its data directory while it runs. So another
shell of the same account finds the running installation without any setting.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from certrail import credential
from certrail.errors import InvalidRequest, Unreachable

RUN_FILE = "run.json"


def default_data_dir() -> Path:
    """Return ``$XDG_DATA_HOME/certrail``, by default ``~/.local/share/certrail``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "share") / "certrail"


class Settings(BaseSettings):
    """What the environment says. Each field is ``CERTRAIL_<NAME>``.

    Attributes:
        data_dir: everything this installation keeps on disk.
        database_url: inventory database, ``postgresql://…``; absent means the embedded server.
        prefect_database_url: Prefect's database; absent means ``prefect`` on the same server.
        key: sealing keys, base64, one on each line; the first one seals.
        key_file: a file with such lines, readable by its owner only.
        credential_file: what `certrail executor credential` wrote, for workers elsewhere.
        host: address the Prefect server listens on.
        port: its TCP port; 0 takes a free one.
        public_url: where browsers reach it, when that is not ``http://host:port`` (a proxy).
        redis_url: a Redis for the Prefect server's messages, ``redis://…``; absent means that they
            stay inside its one process.
        server_processes: processes of the Prefect server; several need a Redis.
        worker_limit: runs that a worker executes at the same time, per pool.
        durable: whether the embedded database waits for the disk at each commit.
        log_level: level of the library's own log lines.
        renewal_horizon_days: how far ahead renewals are shown as scheduled runs, in days.
        executor_silent_seconds: after how many seconds without a word an agent or sensor is silent.
    """

    model_config = SettingsConfigDict(
        env_prefix="CERTRAIL_", env_ignore_empty=True, extra="ignore", frozen=True
    )

    data_dir: Path = Field(default_factory=default_data_dir)
    database_url: SecretStr | None = None
    prefect_database_url: SecretStr | None = None
    key: SecretStr | None = None
    key_file: Path | None = None
    credential_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=4200, ge=0, le=65535)
    public_url: str = ""
    redis_url: SecretStr | None = None
    server_processes: int = Field(default=1, ge=1, le=64)
    worker_limit: int = Field(default=50, ge=1)
    durable: bool = True
    renewal_horizon_days: float = Field(default=7, gt=0, le=90)
    executor_silent_seconds: float = Field(default=90, ge=5)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the environment's settings; read once (``settings.cache_clear()`` reads again).

    Raises:
        InvalidRequest: a variable has a value that cannot be used.
    """
    try:
        return Settings()
    except ValidationError as exc:
        named = ", ".join(f"CERTRAIL_{str(e['loc'][0]).upper()}: {e['msg']}" for e in exc.errors())
        raise InvalidRequest(f"setting cannot be used: {named}") from None


def silent_after() -> timedelta:
    """Return after how long without a word an agent or sensor is silent."""
    return timedelta(seconds=settings().executor_silent_seconds)


@dataclass(frozen=True, slots=True)
class Installation:
    """A running installation, as ``certrail up`` described it.

    Attributes:
        api_url: Prefect's API, ending in ``/api``.
        ui_url: Prefect's pages.
        database_url: the inventory database, with its password.
        pid: process id of ``certrail up``; 0 when the environment alone says where things are.
        key_file: the file of sealing keys, or "" when the key is in the environment.
        api_auth: ``user:password`` of the API, or "" when it asks for none.
        data_dir: where it keeps its files.
    """

    api_url: str
    ui_url: str
    database_url: str = field(repr=False)
    pid: int = 0
    key_file: str = ""
    api_auth: str = field(default="", repr=False)
    data_dir: str = ""

    def environment(self) -> dict[str, str]:
        """Return the variables by which a process finds this installation."""
        named = {
            "CERTRAIL_DATABASE_URL": self.database_url,
            "CERTRAIL_KEY_FILE": self.key_file,
            "CERTRAIL_DATA_DIR": self.data_dir,
            "PREFECT_API_URL": self.api_url,
            "PREFECT_API_AUTH_STRING": self.api_auth,
        }
        return {name: value for name, value in named.items() if value}


def read_run_file(data_dir: Path) -> Installation | None:
    """Return what ``certrail up`` wrote, or None when no living ``certrail up`` wrote it."""
    try:
        raw = json.loads((data_dir / RUN_FILE).read_bytes())
        known = {f.name: type(f.default) if f.name == "pid" else str for f in fields(Installation)}
        given = {name: value for name, value in raw.items() if name in known}
        if not all(type(value) is known[name] for name, value in given.items()):
            return None
        found = Installation(**given)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return found if _alive(found.pid) else None


def write_run_file(data_dir: Path, installation: Installation) -> None:
    """Describe the running installation to other shells of this account (mode 0600)."""
    write_private(data_dir / RUN_FILE, json.dumps(asdict(installation), indent=1) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace *path* in one step with a file that only its owner can read."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def locate() -> Installation:
    """Return the installation to talk to: the environment's, else the running one.

    A variable that is set replaces the value found in ``run.json``.

    Raises:
        Unreachable: nothing runs, and the environment does not say where else to look.
        InvalidRequest: the credential cannot be used.
    """
    known = settings()
    api_url = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    given = credential.read(known.credential_file) if known.credential_file else None
    url = known.database_url.get_secret_value() if known.database_url else ""
    url = url or (given.database_url if given else "")
    found = read_run_file(known.data_dir)
    if found is None and not (api_url and url):
        raise Unreachable(
            f"no certrail installation is running here ({known.data_dir} has none)",
            remedy="Start one with `certrail up`, or set PREFECT_API_URL and "
            "CERTRAIL_CREDENTIAL_FILE (or CERTRAIL_DATABASE_URL) for one that runs elsewhere.",
        )
    key_file = str(known.key_file or "")
    if not key_file and not known.key:
        # A credential is a key file too.
        key_file = str(known.credential_file) if given else found.key_file if found else ""
    api_url = api_url or (found.api_url if found else "")
    same = found is not None and found.api_url == api_url
    return Installation(
        api_url=api_url,
        ui_url=found.ui_url if same and found else api_url.removesuffix("/api"),
        database_url=url or (found.database_url if found else ""),
        pid=found.pid if found else 0,
        key_file=key_file,
        api_auth=os.environ.get("PREFECT_API_AUTH_STRING", "")
        or (given.api_auth if given else "")
        or (found.api_auth if same and found else ""),
        data_dir=str(known.data_dir),
    )


def adopt() -> Installation:
    """Locate the installation and put it into this process's environment.

    Every library that reads its own variables (Prefect's client, the keyring)
    then talks to the same installation. Call it before Prefect is imported.

    Raises:
        Unreachable: see :func:`locate`.
    """
    found = locate()
    os.environ.update(found.environment())
    settings.cache_clear()
    return found


def database_url() -> str:
    """Return the inventory database's URL, with its password.

    Raises:
        Unreachable: none is configured and no installation runs.
    """
    # The environment is read afresh: it is what a worker is started with, and
    # `adopt` sets it; run.json is only for the shells beside it.
    if url := os.environ.get("CERTRAIL_DATABASE_URL", ""):
        return url
    found = read_run_file(settings().data_dir)
    if found is None:
        raise Unreachable(
            "no inventory database is configured and none is running here",
            remedy="Start one with `certrail up`, or set CERTRAIL_DATABASE_URL.",
        )
    return found.database_url


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    except OverflowError:  # no process has such a number
        return False
    return True
