"""Counts the HTTP calls of the process that ``BENCH_COUNT_IN`` names, into ``BENCH_COUNT_FILE``.

The process id is added to the name of the file. On the path of the benchmark's processes; Python
imports it by its name.
"""

from __future__ import annotations

import os
import sys
import threading
import time

_WHERE = os.environ.get("BENCH_COUNT_FILE", "")


def _count() -> None:
    import httpx

    calls = [0]
    send = httpx.AsyncClient.send

    async def counted(self: httpx.AsyncClient, *args: object, **kwargs: object) -> object:
        calls[0] += 1
        return await send(self, *args, **kwargs)  # type: ignore[arg-type]

    httpx.AsyncClient.send = counted  # type: ignore[assignment,method-assign]

    def write() -> None:
        while True:
            time.sleep(0.5)
            mine = f"{_WHERE}.{os.getpid()}"
            with open(f"{mine}.new", "w") as file:
                file.write(str(calls[0]))
            os.replace(f"{mine}.new", mine)

    threading.Thread(target=write, daemon=True).start()


if _WHERE and os.environ.get("BENCH_COUNT_IN", " ") in sys.orig_argv:
    _count()
