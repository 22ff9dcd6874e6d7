"""The runs of shards that an earlier version made can still be begun."""

from __future__ import annotations

from prefect.utilities.callables import parameters_to_args_kwargs

from flows.bulk_shard import bulk_shard


def test_a_run_that_names_its_places_can_be_begun() -> None:
    """As Prefect's engine binds a run's parameters: one too many, and the run fails."""
    earlier = {"job_id": "4f1cbb0e-6b3b-4f0c-8a57-1d1f2f5a9a10", "number": 2, "places": 5}

    args, kwargs = parameters_to_args_kwargs(bulk_shard.fn, earlier)

    assert {**dict(zip(earlier, args, strict=False)), **kwargs} == earlier
