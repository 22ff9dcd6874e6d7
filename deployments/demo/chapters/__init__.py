"""The story, in the order it is told. A chapter is a module with ``play(scene)``."""

from __future__ import annotations

from collections.abc import Callable

from deployments.demo.chapters import (
    appliance,
    bulk_job,
    configuration,
    delivery,
    failure,
    first_request,
    second_name,
)
from deployments.demo.scene import Scene

CHAPTERS: tuple[Callable[[Scene], None], ...] = (
    configuration.play,
    first_request.play,
    second_name.play,
    failure.play,
    appliance.play,
    delivery.play,
    bulk_job.play,
)
