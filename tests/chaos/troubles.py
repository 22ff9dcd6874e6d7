"""The faults that a request has to get through."""

from __future__ import annotations

from tests.chaos.field import Trouble
from tests.support.fault_link import Break
from tests.support.faulty_proxy import Fault

ORDER, CHALLENGE = "POST /order-plz", "POST /chalZ/"
FINALIZE, CERTIFICATE = "POST /finalize-order/", "POST /certZ/"
RECORDS = "PATCH /api/"
STATE = "POST /set_state"
"""A run tells Prefect how far it is."""

BATCHES: dict[str, tuple[Trouble, ...]] = {
    "replies are lost": (
        Trouble("ca", Fault.CUT_AFTER, ORDER),
        Trouble("ca", Fault.CUT_AFTER, FINALIZE),
        Trouble("ca", Fault.CUT_AFTER, CERTIFICATE),
        Trouble("dns", Fault.CUT_AFTER, RECORDS),
        Trouble("ssh", Break.CUT, 15),
        Trouble("database", Break.CUT, 40),
    ),
    "errors after the effect": (
        Trouble("ca", Fault.REFUSED_AFTER, ORDER),
        Trouble("ca", Fault.REFUSED_AFTER, CHALLENGE),
        Trouble("ca", Fault.REFUSED_AFTER, FINALIZE),
        Trouble("dns", Fault.REFUSED_AFTER, RECORDS),
        Trouble("prefect", Fault.REFUSED_AFTER, STATE),
        Trouble("ssh", Break.ALL_CUT, 20),
    ),
    "halves and silence": (
        Trouble("ca", Fault.TRUNCATED, FINALIZE),
        Trouble("ca", Fault.STALLED, ORDER),
        Trouble("ca", Fault.TRUNCATED, CERTIFICATE),
        Trouble("dns", Fault.STALLED, RECORDS),
        Trouble("ssh", Break.TRUNCATED, 18),
        Trouble("database", Break.TRUNCATED, 50),
    ),
    "twice and late": (
        Trouble("ca", Fault.DOUBLED, CHALLENGE),
        Trouble("ca", Fault.DELAYED, FINALIZE),
        Trouble("ca", Fault.STALE_NONCE, ORDER),
        Trouble("ca", Fault.STALE_NONCE, FINALIZE),
        Trouble("dns", Fault.DOUBLED, RECORDS),
        Trouble("prefect", Fault.DOUBLED, STATE),
        Trouble("ssh", Break.DELAYED, 10),
        Trouble("database", Break.ALL_CUT, 140),
    ),
}
