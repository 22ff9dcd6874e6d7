"""Flows that the runtime's tests deploy: they do nothing but take part."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

STEPS = 5


@task(name="toy step", task_run_name="{number}. toy step", cache_policy=NO_CACHE)
async def step(number: int) -> None:
    """Do nothing."""


@flow(name="toy", validate_parameters=False, persist_result=False)
async def five_steps(note: str = "") -> None:
    """Five steps, one after the other."""
    for number in range(1, STEPS + 1):
        await step(number)


@flow(name="toy-waiting", validate_parameters=False, persist_result=False)
async def wait_for_file(path: str, beside: str = "") -> None:
    """Note the process that executes it beside *path*, then wait until *path* exists."""
    await step(1)
    with Path(beside or f"{path}.pids").open("a") as notes:
        notes.write(f"{os.getpid()}\n")
    while not Path(path).exists():
        await asyncio.sleep(0.1)


@task(name="toy long step", task_run_name="long toy step", cache_policy=NO_CACHE)
async def last(path: str) -> None:
    """Last until *path* exists."""
    while not Path(path).exists():
        await asyncio.sleep(0.05)


@flow(name="toy-long-step", validate_parameters=False, persist_result=False)
async def short_and_long(path: str) -> None:
    """A step that is over at once, and one that lasts until *path* exists."""
    await step(1)
    await last(path)


@flow(name="toy-failing", validate_parameters=False, persist_result=False)
async def fail() -> None:
    """End badly."""
    raise RuntimeError("meant to fail")


@flow(name="toy-failing-sync", validate_parameters=False, persist_result=False)
def fail_synchronously() -> None:
    """End badly in a thread of the worker."""
    raise RuntimeError("meant to fail")


@flow(name="toy-job", validate_parameters=False, persist_result=False)
async def job(path: str, members: int) -> None:
    """Run children that wait for *path*, all at once."""
    await asyncio.gather(*(wait_for_file(path) for _ in range(members)))


@flow(name="toy-sync", validate_parameters=False, persist_result=False)
def synchronous() -> None:
    """Not async: the worker runs it in a thread."""


@flow(name="toy-stepping", validate_parameters=False, persist_result=False)
async def step_until(path: str) -> None:
    """Take one step after the other until *path* exists."""
    while not Path(path).exists():
        await step(1)
        await asyncio.sleep(0.1)
