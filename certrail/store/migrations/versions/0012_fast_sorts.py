"""Every order of the inventory has an index; keys that serve several hosts are known beforehand.

Revision: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_FUNCTIONS = """
create function certrail_endpoint_sorts() returns trigger language plpgsql as $$
begin
  new.sort_tags := left(array_to_string(new.tags, ' '), 300);
  select workflow, ca into new.sort_workflow, new.sort_ca
    from profiles where id = new.profile_id;
  -- Both ends count (RFC 5280 section 4.1.2.5), hence the second.
  new.sort_lifetime := (
    select round((extract(epoch from not_after - not_before) + 1) / 86400)
    from certificates where id = new.shown_id
  );
  new.own_kind := null;
  new.own_lacks := false;
  select ca || '/' || key_kind, not (new.names <@ names) into new.own_kind, new.own_lacks
    from certificates where id = new.certificate_id and ca is not null;
  new.own_lacks := coalesce(new.own_lacks, false);
  return new;
end $$;

-- By name after endpoint_shows, which chooses the certificate.
create trigger endpoint_sorts_at_first before insert on endpoints
  for each row execute function certrail_endpoint_sorts();
create trigger endpoint_sorts
  before update of
    names, tags, profile_id, observed, observed_at, certificate_id, last_success_at
  on endpoints
  for each row execute function certrail_endpoint_sorts();

create function certrail_profile_sorts() returns trigger language plpgsql as $$
begin
  update endpoints set sort_workflow = new.workflow, sort_ca = new.ca
    where profile_id = new.id;
  return null;
end $$;
create trigger profile_sorts after update of workflow, ca on profiles
  for each row when (old.workflow <> new.workflow or old.ca <> new.ca)
  execute function certrail_profile_sorts();

-- What was only seen at first may turn out to be ours.
create function certrail_certificate_ours() returns trigger language plpgsql as $$
begin
  update endpoints set observed_at = observed_at where certificate_id = new.id;
  return null;
end $$;
create trigger certificate_ours after update of ca on certificates
  for each row when (old.ca is distinct from new.ca)
  execute function certrail_certificate_ours();

create function certrail_key_shared(wanted text) returns void language plpgsql as $$
begin
  if exists (
    select from endpoints where shown_key_hash = wanted having min(host) < max(host)
  ) then
    insert into shared_keys (key_hash) values (wanted) on conflict do nothing;
  else
    delete from shared_keys where key_hash = wanted;
  end if;
end $$;

create function certrail_endpoint_key() returns trigger language plpgsql as $$
begin
  if tg_op <> 'INSERT' and old.shown_key_hash is distinct from new.shown_key_hash then
    perform certrail_key_shared(old.shown_key_hash);
  end if;
  perform certrail_key_shared(new.shown_key_hash);
  return null;
end $$;
create trigger endpoint_key_at_first after insert on endpoints
  for each row when (new.shown_key_hash is not null)
  execute function certrail_endpoint_key();
-- At each scan too: two that are stored at the same moment do not see each other.
create trigger endpoint_key after update on endpoints
  for each row when (
    old.shown_key_hash is distinct from new.shown_key_hash
    or old.observed_at is distinct from new.observed_at
  )
  execute function certrail_endpoint_key();
"""

_INDEXES = """
create index ix_endpoints_sort_tags on endpoints (sort_tags, location) where sort_tags <> '';
create index ix_endpoints_sort_workflow on endpoints (sort_workflow, location);
create index ix_endpoints_sort_ca on endpoints (sort_ca, location);
create index ix_endpoints_sort_lifetime on endpoints (sort_lifetime, location);
create index ix_endpoints_own_kind on endpoints (profile_id, own_kind);
create index ix_endpoints_own_lacks on endpoints (location) where own_lacks;
create index ix_endpoints_differs on endpoints (location) where differs;
create index ix_endpoints_renewal_too_late on endpoints (location) where renewal_too_late;
drop index ix_endpoints_drifted;
create index ix_endpoints_renewal_held on endpoints (location) where renewal->>'code' = 'held';
create index ix_endpoints_common_name_text on endpoints
  using gin (shown_common_name gin_trgm_ops);
create index ix_endpoints_executor on endpoints (executor) where executor is not null;
"""


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("sort_tags", sa.Text(), server_default="", nullable=False))
    op.add_column("endpoints", sa.Column("sort_workflow", sa.Text()))
    op.add_column("endpoints", sa.Column("sort_ca", sa.Text()))
    op.add_column("endpoints", sa.Column("sort_lifetime", sa.Integer(), comment="days"))
    op.add_column("endpoints", sa.Column("own_kind", sa.Text(), comment="CA and key of what it got from us"))
    op.add_column(
        "endpoints",
        sa.Column(
            "own_lacks",
            sa.Boolean(),
            server_default="false",
            nullable=False,
            comment="a name is configured that the certificate does not have",
        ),
    )
    # As columns, for their statistics: of a comparison of two columns nothing is known.
    for name, expression in (
        ("differs", "coalesce(shown_id <> certificate_id, false)"),
        ("renewal_too_late", "coalesce(next_renewal_at >= shown_not_after, false)"),
    ):
        op.add_column(
            "endpoints",
            sa.Column(name, sa.Boolean(), sa.Computed(expression, persisted=True), nullable=False),
        )
    op.create_table(
        "shared_keys",
        sa.Column("key_hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key_hash", name=op.f("pk_shared_keys")),
        comment="Public keys that several hosts serve, kept by a trigger.",
    )
    op.execute(_FUNCTIONS)
    op.execute("update endpoints set tags = tags")
    op.execute(
        "insert into shared_keys select shown_key_hash from endpoints"
        " where shown_key_hash is not null"
        " group by shown_key_hash having min(host) < max(host) on conflict do nothing"
    )
    op.execute(_INDEXES)
