"""How Prefect is set up here: one table, used by `up`, the worker and `doctor`.

Prefect's defaults lose task runs silently under a bulk job: its recorder
writes one row at a time while its queue holds 10,000 messages and drops the
rest. What each setting was measured to do is said beside it.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import certifi

from certrail.model import Workflow

PREFECT_VERSION = "3.8.8"
# Releases that Prefect's metadata allows and its server does not survive: with
# FastAPI 0.151 it does not start, with SQLAlchemy 2.1 its scheduler inserts no run.
BELOW = {"fastapi": (0, 151), "sqlalchemy": (2, 1)}
POOLS = ("agents", "sensors")
_SENSORS = (Workflow.APPLIANCE,)
POOL_TYPE = "certrail"


def pool_of(workflow: Workflow) -> str:
    """Return the work pool whose workers run requests of *workflow*; as in prefect.yaml."""
    return "sensors" if workflow in _SENSORS else "agents"


@dataclass(frozen=True, slots=True)
class ServerSetting:
    """One setting of the Prefect server.

    Attributes:
        variable: environment variable.
        value: what it is set to.
        path: where ``GET /api/admin/settings`` shows it.
        why: the reason, for people.
        needed: whether `doctor` calls another value a failure rather than a warning;
            None means that it is not compared.
    """

    variable: str
    value: str
    path: str
    why: str
    needed: bool | None = False


SERVER_SETTINGS = (
    ServerSetting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE",
        "200",
        "server.services.task_run_recorder.batch_size",
        "with 1 the recorder falls behind and task runs are lost for ever",
        needed=True,
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL",
        "1",
        "server.services.task_run_recorder.flush_interval",
        "steps appear a second after they happen instead of five",
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE",
        "100",
        "server.services.task_run_recorder.read_batch_size",
        "fewer round trips to a Redis broker; without effect in one process",
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE",
        "500",
        "server.services.event_persister.batch_size",
        "events are written in larger batches, at less cost for each request",
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL",
        "2",
        "server.services.event_persister.flush_interval",
        "the event feed is two seconds behind instead of five",
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE",
        "100",
        "server.services.event_persister.read_batch_size",
        "fewer round trips to a Redis broker; without effect in one process",
    ),
    ServerSetting(
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD",
        "P3D",
        "server.events.retention_period",
        "events are two thirds of Prefect's database; the audit log is in the inventory",
        needed=None,
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED",
        "events,flow_runs",
        "server.services.db_vacuum.enabled",
        "flow runs older than 90 days go too; by default they stay for ever",
        needed=None,
    ),
    ServerSetting(
        "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_LOOP_SECONDS",
        "10",
        "server.services.cancellation_cleanup.loop_seconds",
        "children of a cancelled job follow within ten seconds",
    ),
    ServerSetting(
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect.server.concurrency.lease_storage.filesystem",
        "server.concurrency.lease_storage",
        "slots of global limits that a worker held when the server restarted come back",
    ),
    ServerSetting(
        "PREFECT_SERVER_ANALYTICS_ENABLED",
        "false",
        "server.analytics_enabled",
        "nothing is sent to the vendor",
    ),
    ServerSetting(
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT",
        "false",
        "server.ui.show_promotional_content",
        "the pages show this installation only",
    ),
    ServerSetting(
        "PREFECT_SERVER_UI_V2_ENABLED",
        "false",
        "server.ui.v2_enabled",
        "the start page belongs to the same interface as the pages that links lead to",
        needed=None,
    ),
    ServerSetting(
        "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED",
        "false",
        "server.api.csrf_protection_enabled",
        "no cookies are used, so it protects nothing and costs a call per client",
        needed=None,
    ),
    ServerSetting(
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE",
        "15",
        "server.database.sqlalchemy.pool_size",
        "a page of the inventory does not wait behind a bulk job's writes",
        needed=None,
    ),
)

# Settings of the server whose messages go through Redis. Several processes of it share their
# database and folder besides: leases of slots stay in files, since a slot whose lease is lost
# with Redis would be taken for ever.
REDIS_SETTINGS: Mapping[str, str] = {
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
    # Each event goes out as it comes, and nothing goes out from time to time: what arrives
    # while the publisher sends a batch from time to time is dropped with that batch
    # (prefect-redis 0.3.0: 8 of 3,000 events, with a pause of 50 ms instead of 10 s).
    "PREFECT_REDIS_MESSAGING_PUBLISHER_BATCH_SIZE": "1",
    "PREFECT_REDIS_MESSAGING_PUBLISHER_PUBLISH_EVERY": str(365 * 86_400),
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
}
_REDIS_URLS = (
    "PREFECT_REDIS_MESSAGING_URL",
    "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL",
    "PREFECT_SERVER_DOCKET_URL",
)

# What every process that talks to the server gets, worker and flows included.
CLIENT_SETTINGS: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    # The server does not use it, and each new client would ask for a token.
    "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
    # One installation, one version: `doctor` compares them once instead.
    "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",
    # A started request begins within about a second (default 10).
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    # Runs begin at their time, not ten seconds before it.
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    # The library's own lines belong to the log of the run they are part of.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "certrail",
    # Outside of a run they go to the worker's own log, without a warning each.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the Prefect server listens and how it is reached.

    Attributes:
        host: address it binds.
        port: TCP port.
        public_url: where browsers reach it through a proxy, or "".
    """

    host: str
    port: int
    public_url: str = ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return self.host in {"localhost", "::1"} or self.host.startswith("127.")

    @property
    def local_url(self) -> str:
        """The server as seen from this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104
        if ":" in host and not host.startswith("["):
            host = f"[{host}]"
        return f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """Prefect's API for processes on this machine."""
        return f"{self.local_url}/api"

    @property
    def ui_url(self) -> str:
        """Prefect's pages."""
        return self.public_url.rstrip("/") or self.local_url


def server_environment(
    address: Address,
    *,
    database_url: str,
    home: Path,
    encryption_key: str,
    api_auth: str,
    redis_url: str = "",
) -> dict[str, str]:
    """Return the environment of the Prefect server process.

    Args:
        address: where it listens.
        database_url: its PostgreSQL database.
        home: folder for its own files.
        encryption_key: Fernet key of the secrets in blocks; without it Prefect
            keeps the key in the same database as the secrets.
        api_auth: ``user:password`` asked of every API call, or "".
        redis_url: where its messages go through, or "" for a server of one process.
    """
    environment = base_environment(home)
    environment |= {s.variable: s.value for s in SERVER_SETTINGS}
    if redis_url:
        environment |= {**REDIS_SETTINGS, **dict.fromkeys(_REDIS_URLS, redis_url)}
    environment |= {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": asyncpg_url(database_url),
        "PREFECT_SERVER_ENCRYPTION_KEY": encryption_key,
        "PREFECT_SERVER_API_HOST": address.host,
        "PREFECT_SERVER_API_PORT": str(address.port),
        # Links in notifications, and what the browser calls.
        "PREFECT_UI_URL": address.ui_url,
        "PREFECT_SERVER_UI_API_URL": f"{address.ui_url}/api",
        # The package's own folder may belong to somebody else.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        "PREFECT_API_URL": address.api_url,
    }
    if api_auth:
        environment["PREFECT_SERVER_API_AUTH_STRING"] = api_auth
        environment["PREFECT_API_AUTH_STRING"] = api_auth
    return environment


def client_environment(
    *, api_url: str, ui_url: str, home: Path, api_auth: str, certrail: Mapping[str, str]
) -> dict[str, str]:
    """Return the environment of a worker process."""
    environment = base_environment(home) | {
        "PREFECT_API_URL": api_url,
        "PREFECT_UI_URL": ui_url,
        **certrail,
    }
    if api_auth:
        environment["PREFECT_API_AUTH_STRING"] = api_auth
    return environment


def base_environment(home: Path) -> dict[str, str]:
    """Return our environment without another installation's Prefect server settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_SERVER_DATABASE")}
    # The project's folders are importable even when they are not installed.
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *(p for p in kept.get("PYTHONPATH", "").split(os.pathsep) if p and p != root)]
    kept["PYTHONPATH"] = os.pathsep.join(paths)
    kept["PREFECT_HOME"] = str(home)
    # Compiling Prefect anew at every start takes four seconds of CPU. Who wants
    # no bytecode beside the sources gets it in our own folder.
    if kept.pop("PYTHONDONTWRITEBYTECODE", ""):
        kept.setdefault("PYTHONPYCACHEPREFIX", str(_cache_home() / "certrail" / "bytecode"))
    # Anything that is set by hand stays as it is set.
    return {**CLIENT_SETTINGS, **kept}


def api_trust() -> ssl.SSLContext:
    """Return what checks the certificate of a proxy before the API, as Prefect's client does."""
    own = os.environ.get("PREFECT_API_SSL_CERT_FILE") or os.environ.get("SSL_CERT_FILE")
    return ssl.create_default_context(cafile=own or certifi.where())


def _cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return Path(base) if base else Path.home() / ".cache"


def asyncpg_url(url: str) -> str:
    """Return *url* as Prefect's server wants it, with the driver it uses."""
    _, _, rest = url.partition("://")
    return f"postgresql+asyncpg://{rest}"


def server_command(role: str = "") -> list[str]:
    """Return the command line of the Prefect server, or of one of its several processes.

    It holds no secret.

    Args:
        role: ``api``, ``services``, or "" for one process that is both.
    """
    return [sys.executable, "-m", "certrail.cli._serve", *([role] if role else [])]
