"""``make demo``: a whole installation with real servers, on this machine, for a look.

Nothing but wheels is needed, and no root. Everything listens on 127.0.0.1,
keeps its files in one temporary folder and ends with the demo:

* ``certrail up``: PostgreSQL, Prefect, a worker
* Caddy as an ACME CA that really looks at DNS before it issues
* an authoritative DNS server that takes signed updates
* HAProxy, on a "machine" that is reached over SSH only
* another Caddy as a load balancer that is changed through its API only
* a mail server, which takes what Certrail tells people

The story is told in chapters, one module each in :mod:`deployments.demo.chapters`.
"""
