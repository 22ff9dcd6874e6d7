"""DigiCert CertCentral through its Services API, version 2.

Read for it, November 2026, on dev.digicert.com: "List orders", "Order info",
"Order OV/EV SSL", "Reissue certificate", "Duplicate certificate", "Revoke
certificate", "Add domain", "Submit for validation", "Domain info", "List
domains", "Check domain DCV", "OV/EV SSL: Generate DCV token", "Rate limits";
on docs.digicert.com: "DNS-based DCV methods". The service itself was not at
hand: what has been run is our imitation of it. Not found there and so not
relied on: the error codes of single calls, what a wrong key answers (401 and
403 both count), whether 429 carries Retry-After.

Our reference is stored as the order's ``alternative_order_id``, by which an order
whose reply was lost is found; the key in its CSR, which no other request has, is the
second check. Such ids need not be unique, and the pages do not say whether every
account has them: an order that is refused for that field is placed without it, and is
found among the newest orders for the common name by the key in its CSR. Reissues and
duplicates have no such id and are found by their CSR in their order.

Control of domains is proven for the account ("prevalidation"), which is what
lets OV and EV orders be issued at once. DV products are validated order by
order; use DigiCert's ACME service with ``ca-acme`` for those.
"""

from __future__ import annotations

from blocks.ca.certcentral.block import CertCentral

__all__ = ["CertCentral"]
