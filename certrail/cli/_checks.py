"""What ``certrail doctor`` looks at. Each check returns findings and raises nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from certrail.cli._server import (
    BELOW,
    POOL_TYPE,
    POOLS,
    PREFECT_VERSION,
    REDIS_SETTINGS,
    SERVER_SETTINGS,
    api_trust,
)
from certrail.errors import CertrailError, KeyUnavailable, Unreachable
from certrail.keys.seal import keyring
from certrail.log import plain
from certrail.settings import Installation, adopt, silent_after
from certrail.store import configured, database, executors, intents
from certrail.store import keys as key_store
from certrail.store.schema import keys
from certrail.words import counted

_ONLINE = "ONLINE"
_SECONDS = 10.0
_SHOWN = 10


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: stable name of what was looked at.
        status: how it came out.
        message: what was found.
        remedy: what to do; "" when it is ok.
        unreachable: whether something did not answer at all.
    """

    check: str
    status: Verdict
    message: str
    remedy: str = ""
    unreachable: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the finding as other programs get it."""
        plain_data = asdict(self)
        del plain_data["unreachable"]
        return plain_data


def examine() -> Iterator[Finding]:
    """Look at everything, in the order in which things depend on each other."""
    yield from _versions()
    try:
        found = adopt()
    except CertrailError as exc:
        yield _failed("installation", exc)
        return
    yield Finding("installation", Verdict.OK, _described(found))
    yield from _guarded("database", _database)
    yield from _guarded("key", _key)
    yield from _server(found)
    yield from _guarded("executors", _executors)
    yield from _guarded("connectors", _connectors)
    yield from _guarded("journal", _journal)


def _versions() -> Iterator[Finding]:
    prefect = _version("prefect")
    if prefect == PREFECT_VERSION:
        yield Finding("prefect-version", Verdict.OK, f"Prefect {prefect}")
    else:
        yield Finding(
            "prefect-version",
            Verdict.FAILED,
            f"Prefect {prefect or 'is missing'}, made for {PREFECT_VERSION}",
            f"Install it: pip install prefect=={PREFECT_VERSION}",
        )
    for package, limit in BELOW.items():
        yield _below(package, limit)


def _below(package: str, limit: tuple[int, int]) -> Finding:
    present = _version(package)
    if present and tuple(int(word) for word in present.split(".")[:2]) < limit:
        return Finding(f"{package}-version", Verdict.OK, f"{package} {present}")
    wanted = ".".join(str(number) for number in limit)
    return Finding(
        f"{package}-version",
        Verdict.FAILED,
        f"{package} {present or 'is missing'}: Prefect's server does not work with it",
        f"Install an older one: pip install '{package}<{wanted}'",
    )


def _database() -> Iterator[Finding]:
    with database.transaction() as connection:
        current = database.is_current(connection)
    if current:
        yield Finding("database", Verdict.OK, "reachable and up to date")
    else:
        yield Finding(
            "database",
            Verdict.FAILED,
            "reachable, but its schema is not the one this version uses",
            "Start `certrail up` of this version: it brings the schema up to date.",
        )


def _key() -> Iterator[Finding]:
    """Open something that was sealed: a key that is merely there may be the wrong one."""
    keyring()
    with database.transaction() as connection:
        newest = connection.scalar(
            select(keys.c.id).where(keys.c.sealed.is_not(None)).order_by(keys.c.id).limit(1)
        )
    if newest is None:
        yield Finding("key", Verdict.OK, "present; nothing has been sealed yet")
        return
    key_store.load(newest)
    yield Finding("key", Verdict.OK, "present, and it opens what was sealed")


def _server(found: Installation) -> Iterator[Finding]:
    user, _, password = found.api_auth.partition(":")
    with httpx.Client(
        base_url=found.api_url,
        timeout=_SECONDS,
        auth=(user, password) if user else None,
        verify=api_trust(),
    ) as client:
        try:
            there = client.get("/admin/version").raise_for_status().json()
            settings = client.get("/admin/settings").raise_for_status().json()
            pools = client.post("/work_pools/filter", json={}).raise_for_status().json()
            workers = {
                name: client.post(f"/work_pools/{name}/workers/filter", json={}).json()
                for name in POOLS
                if any(pool["name"] == name for pool in pools)
            }
        except httpx.HTTPStatusError as exc:
            yield _failed("server", _refusal(exc))
            return
        except (httpx.TransportError, ValueError) as exc:
            yield _failed(
                "server",
                Unreachable(
                    f"the Prefect server at {found.api_url} does not answer: {plain(exc)}",
                    remedy="Start it with `certrail up`, or correct PREFECT_API_URL.",
                ),
            )
            return
    yield _same_version(str(there))
    yield from _settings(settings)
    for name in POOLS:
        yield _pool(name, pools, workers.get(name, []))


def _same_version(there: str) -> Finding:
    if there == PREFECT_VERSION:
        return Finding("server", Verdict.OK, f"answers, Prefect {there}")
    return Finding(
        "server",
        Verdict.WARNING,
        f"answers, but runs Prefect {there} instead of {PREFECT_VERSION}",
        "Run server and workers from the same release of Certrail.",
    )


def _settings(shown: dict[str, Any]) -> Iterator[Finding]:
    others = 0
    for setting in SERVER_SETTINGS:
        if setting.needed is None:
            continue
        value = _at(shown, setting.path)
        if value is None or _alike(value, setting.value):
            continue
        if value == REDIS_SETTINGS.get(setting.variable):
            continue
        others += 1
        yield Finding(
            "server-settings",
            Verdict.FAILED if setting.needed else Verdict.WARNING,
            f"{setting.variable} is {plain(value)} instead of {setting.value}: {setting.why}",
            f"Start the server with {setting.variable}={setting.value}, or by `certrail up`.",
        )
    if not others:
        yield Finding("server-settings", Verdict.OK, "as they are needed")


def _pool(name: str, pools: list[dict[str, Any]], workers: list[dict[str, Any]]) -> Finding:
    check = f"pool-{name}"
    pool = next((pool for pool in pools if pool["name"] == name), None)
    if pool is None:
        return Finding(
            check,
            Verdict.FAILED,
            f"the work pool {name} is missing",
            "Start `certrail up`, or run: python -m deployments.bootstrap",
        )
    if pool["type"] != POOL_TYPE:
        return Finding(
            check,
            Verdict.FAILED,
            f"the work pool {name} is of the type {plain(pool['type'])}: "
            "it would start a process for each request",
            f"Delete it, then start `certrail up`, which makes it with the type {POOL_TYPE}.",
        )
    if pool["is_paused"]:
        return Finding(
            check,
            Verdict.WARNING,
            f"the work pool {name} is paused: nothing begins",
            f"Resume it: prefect work-pool resume {name}",
        )
    alive = [plain(worker["name"]) for worker in workers if worker.get("status") == _ONLINE]
    if not alive:
        return Finding(
            check,
            Verdict.FAILED,
            f"no worker serves {name}: its requests stay queued",
            f"Start one: certrail worker --pool {name}",
        )
    return Finding(check, Verdict.OK, f"served by {', '.join(sorted(alive))}")


def _executors() -> Iterator[Finding]:
    """Tell which agents and sensors are silent, and what waits for one that nobody knows."""
    found = executors.everyone(silent_after())
    for one in found:
        if one.status != "silent":
            continue
        work = f"; {_waiting(one.waiting)} for it" if one.waiting else ""
        yield Finding(
            f"executor-{plain(one.name)}",
            Verdict.FAILED if one.waiting else Verdict.WARNING,
            f"{plain(one.name)} ({one.pool}) is silent since "
            f"{one.last_seen_at:%Y-%m-%d %H:%M} UTC{work}",
            f"Start it on {plain(one.host)}: certrail worker --pool {one.pool} "
            f"--name {plain(one.name)}; if it is gone: certrail executor forget {plain(one.name)}",
        )
    for queue, number in executors.unknown().items():
        yield Finding(
            f"executor-{plain(queue)}",
            Verdict.FAILED,
            f"{_waiting(number)} for {plain(queue)}, of which nobody has heard",
            f"Start it: certrail worker --pool agents --name {plain(queue)}; "
            "or correct `executor` of the endpoint or target",
        )
    if found and all(one.status != "silent" for one in found):
        yield Finding("executors", Verdict.OK, f"{len(found)} heard of lately")


def _waiting(number: int) -> str:
    return counted(number, "request waits", "requests wait")


def _connectors() -> Iterator[Finding]:
    """Tell what the last check of each connector found; `connector check` looks anew."""
    with database.transaction() as connection:
        rows = configured.all_connectors(connection)
    bad = [row for row in rows if row.check_ok is False]
    for row in bad:
        yield Finding(
            f"connector-{row.name}",
            Verdict.WARNING,
            plain(row.check_message or "its last check failed"),
            f"Correct it, then: certrail connector check {row.name}",
        )
    if rows and not bad:
        yield Finding("connectors", Verdict.OK, f"{len(rows)} configured")


def _journal() -> Iterator[Finding]:
    """Tell what was begun, and of which nobody knows whether it happened."""
    found = intents.unknown()
    for one in found[:_SHOWN]:
        yield Finding(
            "journal",
            Verdict.WARNING,
            plain(
                f"{one.location}: {one.action} was begun on {one.since:%Y-%m-%d %H:%M} UTC and its "
                f"outcome was never recorded; request {str(one.request_id)[:8]} is "
                f"{one.status.text.lower()}"
            ),
            one.remedy,
        )
    if len(found) > _SHOWN:
        yield Finding(
            "journal",
            Verdict.WARNING,
            counted(len(found) - _SHOWN, "more effect", "more effects")
            + " whose outcome was never recorded",
            "`certrail dashboard --json` lists them under `unknown_outcomes`.",
        )
    if not found:
        yield Finding("journal", Verdict.OK, "the outcome of everything that was begun is known")


def _guarded(check: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except CertrailError as exc:
        yield _failed(check, exc)
    except SQLAlchemyError as exc:
        said = str(getattr(exc, "orig", None) or exc).splitlines()
        yield Finding(
            check,
            Verdict.FAILED,
            plain(said[0] if said else type(exc).__name__),
            "Start `certrail up` of this version: it brings the database up to date.",
        )


def _failed(check: str, exc: CertrailError) -> Finding:
    return Finding(
        check,
        Verdict.FAILED,
        plain(exc),
        exc.remedy,
        unreachable=isinstance(exc, Unreachable) and not isinstance(exc, KeyUnavailable),
    )


def _refusal(exc: httpx.HTTPStatusError) -> CertrailError:
    status = exc.response.status_code
    if status in (401, 403):
        return Unreachable(
            f"Prefect's API refuses us: HTTP {status}",
            remedy="Set PREFECT_API_AUTH_STRING to user:password of the API.",
        )
    return Unreachable(
        f"Prefect's API answers HTTP {status}",
        remedy="Check that PREFECT_API_URL is that of a Prefect server, ending in /api.",
    )


def _described(found: Installation) -> str:
    if found.pid:
        return f"`certrail up` runs as process {found.pid}, UI at {found.ui_url}"
    return f"taken from the environment, API at {found.api_url}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _at(tree: dict[str, Any], path: str) -> Any:
    value: Any = tree
    for word in path.split("."):
        if not isinstance(value, dict) or word not in value:
            return None
        value = value[word]
    return value


def _alike(shown: object, wanted: str) -> bool:
    if isinstance(shown, bool):
        return str(shown).lower() == wanted
    if isinstance(shown, int | float):
        return float(shown) == float(wanted)
    return str(shown) == wanted
