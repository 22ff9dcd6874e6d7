"""DigiCert CertCentral through its Services API, version 2.

Read for it, November 2026, on dev.digicert.com: "List orders", "Order info",
"Order OV/EV SSL", "Reissue certificate", "Duplicate certificate", "Revoke
certificate", "Add domain", "Submit for validation", "Domain info", "List
domains", "Check domain DCV", "OV/EV SSL: Generate DCV token", "Rate limits";
on docs.digicert.com: "DNS-based DCV methods". The service itself was not at
hand: what has been run is our imitation of it. Not found there and so not
relied on: the error codes of single calls, what a wrong key answers (401 and
403 both count), whether 429 carries Retry-After.

The API has no field of ours that orders can be searched by. An order whose
reply was lost is found by its common name and recognized by the key in its
CSR, which no other request has.

Control of domains is proven for the account ("prevalidation"), which is what
lets OV and EV orders be issued at once. DV products are validated order by
order; use DigiCert's ACME service with ``ca-acme`` for those.
"""

from __future__ import annotations

from blocks.ca.certcentral.block import CertCentral

__all__ = ["CertCentral"]
