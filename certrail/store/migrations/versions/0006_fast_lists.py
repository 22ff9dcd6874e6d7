"""What lists filter and sort by is indexed: the certificate that an endpoint shows, its last request.

Revision: 0006
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS: tuple[sa.Column[Any], ...] = (
    sa.Column("served_fingerprint", sa.Text()),
    sa.Column("finding_codes", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    sa.Column("shown_id", sa.UUID(), comment="the certificate that lists show"),
    sa.Column("shown_names", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    sa.Column("shown_words", sa.Text(), server_default="", nullable=False),
    sa.Column("shown_common_name", sa.Text()),
    sa.Column("shown_issuer", sa.Text()),
    sa.Column("shown_fingerprint", sa.Text()),
    sa.Column("shown_serial", sa.Text()),
    sa.Column("shown_key", sa.Text()),
    sa.Column("shown_key_hash", sa.Text(), comment="SHA-256 of the public key, hex"),
    sa.Column("host", sa.Text(), comment="the location without its port"),
    sa.Column("shown_not_after", sa.DateTime(timezone=True)),
)

# What was seen counts for more than what was installed, unless it is older.
_FUNCTIONS = """
create function certrail_endpoint_shows() returns trigger language plpgsql as $$
declare
  ours certificates%rowtype;
  seen certificates%rowtype;
begin
  new.served_fingerprint := coalesce(
    new.observed->>'fingerprint',
    new.observed->'certificate'->>'fingerprint',
    new.observed->'addresses'->0->>'fingerprint'
  );
  new.finding_codes := coalesce(
    (select array_agg(distinct code #>> '{}')
     from jsonb_path_query(new.observed, '$.**.code') as found(code)),
    '{}'
  );
  select * into seen from certificates where fingerprint = new.served_fingerprint;
  select * into ours from certificates where id = new.certificate_id;
  if seen.id is not null and (
    ours.id is null or new.last_success_at is null or new.observed_at >= new.last_success_at
  ) then
    ours := seen;
  end if;
  new.shown_id := ours.id;
  -- Short enough for an index, whatever a stranger's certificate says.
  new.shown_issuer := left(ours.issuer, 300);
  new.shown_fingerprint := ours.fingerprint;
  new.shown_serial := left(ours.serial, 300);
  new.shown_key := left(ours.key_kind, 300);
  new.shown_key_hash := ours.key_hash;
  new.host := regexp_replace(new.location, ':[0-9]+$', '');
  new.shown_not_after := ours.not_after;
  new.shown_common_name := left(coalesce(ours.common_name, new.names[1]), 300);
  new.shown_names := case
    when cardinality(new.names) > 0 then new.names else coalesce(ours.names, '{}') end;
  new.shown_words := array_to_string(new.shown_names, ' ');
  return new;
end $$;

create trigger endpoint_shows_at_first before insert on endpoints
  for each row execute function certrail_endpoint_shows();
create trigger endpoint_shows
  before update of names, observed, observed_at, certificate_id, last_success_at on endpoints
  for each row execute function certrail_endpoint_shows();

-- A certificate that is stored after it was seen.
create function certrail_certificate_shown() returns trigger language plpgsql as $$
begin
  update endpoints set observed_at = observed_at where served_fingerprint = new.fingerprint;
  return null;
end $$;
create trigger certificate_shown after insert on certificates
  for each row execute function certrail_certificate_shown();

create function certrail_request_is_latest() returns trigger language plpgsql as $$
begin
  update requests set is_latest = false where endpoint_id = new.endpoint_id and is_latest;
  return new;
end $$;
create trigger request_is_latest before insert on requests
  for each row execute function certrail_request_is_latest();
"""

_INDEXES = """
create index ix_endpoints_served_fingerprint on endpoints (served_fingerprint);
create index ix_endpoints_profile_location on endpoints (profile_id, location);
create index ix_endpoints_target_location on endpoints (target, location);
create index ix_endpoints_not_configured on endpoints (location)
  where profile_id is null or target is null;
create index ix_endpoints_server on endpoints (lower(server->>'kind'), location);
create index ix_endpoints_common_name on endpoints (lower(shown_common_name), location);
create index ix_endpoints_issuer on endpoints (lower(shown_issuer), location);
create index ix_endpoints_fingerprint on endpoints (shown_fingerprint, location);
create index ix_endpoints_serial on endpoints (lower(shown_serial), location);
create index ix_endpoints_key on endpoints (lower(shown_key), location);
create index ix_endpoints_not_after on endpoints (shown_not_after, location);
create index ix_endpoints_key_hash on endpoints (shown_key_hash, host)
  where shown_key_hash is not null;
create index ix_endpoints_last_success on endpoints (last_success_at, location);
create index ix_endpoints_next_renewal on endpoints (next_renewal_at, location);
create index ix_endpoints_words_location on endpoints (left(shown_words, 300), location);
create index ix_endpoints_drifted on endpoints (location) where shown_id <> certificate_id;
create index ix_endpoints_names on endpoints using gin (shown_names);
create index ix_endpoints_findings on endpoints using gin (finding_codes);
create index ix_endpoints_location_text on endpoints using gin (location gin_trgm_ops);
create index ix_endpoints_words_text on endpoints using gin (shown_words gin_trgm_ops);
create unique index uq_requests_latest on requests (endpoint_id) where is_latest;
create index ix_requests_latest_status on requests (status, ended_at) where is_latest;
create statistics st_requests_latest_status (mcv) on is_latest, status from requests;
create index ix_requests_latest_job on requests (job_id) where is_latest;
"""


def upgrade() -> None:
    # A trusted extension: whoever may create tables here may have it. Prefect needs it too.
    op.execute("create extension if not exists pg_trgm")
    for column in _COLUMNS:
        op.add_column("endpoints", column)
    op.add_column(
        "requests",
        sa.Column(
            "is_latest",
            sa.Boolean(),
            server_default="true",
            nullable=False,
            comment="the endpoint has no newer one",
        ),
    )
    op.add_column("certificates", sa.Column("key_hash", sa.Text(), comment="SHA-256 of the public key, hex"))
    _fill_key_hashes()
    op.execute(_FUNCTIONS)
    op.execute(
        "update requests r set is_latest = false where exists (select from requests n"
        " where n.endpoint_id = r.endpoint_id and (n.created_at, n.id) > (r.created_at, r.id))"
    )
    op.execute("update endpoints set observed = observed")
    op.drop_index("ix_endpoints_profile_id")
    op.drop_index("ix_endpoints_target")
    op.drop_index("ix_endpoints_next_renewal_at")
    op.execute(_INDEXES)
    # What scans saw is long, and lists do not read it: kept beside the row, not in it.
    op.execute("alter table endpoints set (toast_tuple_target = 512)")


def _fill_key_hashes() -> None:
    from certrail.model import Chain, key_hash

    connection = op.get_bind()
    rows = connection.execute(sa.text("select id, chain_pem from certificates")).all()
    for row in rows:
        connection.execute(
            sa.text("update certificates set key_hash = :key where id = :id"),
            {"key": key_hash(Chain.from_pem(row.chain_pem).leaf), "id": row.id},
        )
