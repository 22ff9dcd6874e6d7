"""Events with a stable id, the delivery log, and an audit trail that is a chain."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What one entry adds to the chain. certrail/audit_chain.py computes the same text.
_TEXT = """
create function audit_entry_text(entry audit, place bigint, before text) returns text
language sql immutable as $$
  select before || E'\\n' || place || E'\\n'
    || to_char(entry.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || E'\\n'
    || to_json(entry.actor)::text || E'\\n' || to_json(entry.action)::text || E'\\n'
    || to_json(entry.object)::text || E'\\n' || entry.detail::text
$$
"""

# Deferred: the lock is held from the commit on only, so that a long transaction does
# not keep others from being audited, and the order of the chain is that of commits.
_CHAIN = """
create function audit_chain() returns trigger language plpgsql as $$
declare
  place bigint;
  before text;
begin
  perform pg_advisory_xact_lock(hashtextextended('certrail audit chain', 0));
  select seq, hash into place, before from audit
    where seq is not null order by seq desc limit 1;
  place := coalesce(place, 0) + 1;
  before := coalesce(before, '');
  update audit set seq = place,
      hash = encode(sha256(convert_to(audit_entry_text(new, place, before), 'UTF8')), 'hex')
    where id = new.id and seq is null;
  return null;
end $$
"""

_APPEND_ONLY = """
create function audit_append_only() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and old.seq is null and old.hash is null
     and (new.id, new.at, new.actor, new.action, new.object, new.detail)
       is not distinct from (old.id, old.at, old.actor, old.action, old.object, old.detail) then
    return new;
  end if;
  raise exception 'the audit trail is append-only' using errcode = 'restrict_violation';
end $$
"""


def upgrade() -> None:
    op.drop_index("ix_outbox_unsent", table_name="outbox")
    for column in ("sent_at", "attempts", "next_attempt_at", "last_error"):
        op.drop_column("outbox", column)
    op.add_column(
        "outbox",
        sa.Column(
            "event_id",
            sa.UUID(),
            server_default=sa.text("gen_random_uuid()"),
            nullable=False,
            comment="what Prefect, webhooks and e-mails call this event; it never changes",
        ),
    )
    op.add_column(
        "outbox",
        sa.Column(
            "once",
            sa.Text(),
            nullable=True,
            comment="what may be told one time only, such as an expiry",
        ),
    )
    op.add_column("outbox", sa.Column("emitted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("outbox", sa.Column("routed_at", sa.DateTime(timezone=True), nullable=True))
    op.create_unique_constraint(op.f("uq_outbox_event_id"), "outbox", ["event_id"])
    op.create_unique_constraint(op.f("uq_outbox_once"), "outbox", ["once"])
    # What happened before this version was emitted then; nobody is told of it now.
    op.execute("update outbox set emitted_at = now(), routed_at = now()")
    for name in ("emitted", "routed"):
        op.create_index(
            f"ix_outbox_un{name}",
            "outbox",
            ["id"],
            postgresql_where=sa.text(f"{name}_at is null"),
        )
    op.create_table_comment(
        "outbox",
        "Lifecycle events: emitted to Prefect, and routed to those who want to hear of them.",
    )
    op.create_table(
        "notifications",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("outbox_id", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False, comment="connector that carries it"),
        sa.Column(
            "recipient",
            sa.Text(),
            nullable=False,
            comment="an address, or empty: the channel's own",
        ),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column(
            "digest",
            sa.Text(),
            comment="messages of one digest, channel and recipient go as one",
        ),
        sa.Column("held_because", sa.Text(), comment="quiet hours or digest"),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("claimed_by", sa.Text()),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column(
            "message_id",
            sa.Text(),
            comment="the same at each attempt, so that receivers can tell",
        ),
        sa.Column("subject", sa.Text()),
        sa.Column("answer", sa.Text(), comment="what the receiving server said"),
        sa.Column("last_error", sa.Text()),
        sa.Column("remedy", sa.Text()),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status in ('pending', 'sent', 'failed', 'dropped')",
            name=op.f("ck_notifications_status"),
        ),
        sa.ForeignKeyConstraint(
            ["outbox_id"], ["outbox.id"], name=op.f("fk_notifications_outbox_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications")),
        sa.UniqueConstraint(
            "outbox_id",
            "channel",
            "recipient",
            name=op.f("uq_notifications_outbox_id_channel_recipient"),
        ),
        comment="The delivery log: one row for each event and recipient.",
    )
    op.create_index(
        "ix_notifications_pending",
        "notifications",
        ["due_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "notification_settings",
        sa.Column("is_only", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("settings", postgresql.JSONB(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("is_only", name=op.f("ck_notification_settings_is_only")),
        sa.PrimaryKeyConstraint("is_only", name=op.f("pk_notification_settings")),
        comment="The account-wide rules, as applied; one row.",
    )
    op.add_column(
        "audit",
        sa.Column("seq", sa.BigInteger(), comment="place in the chain, in order of commit"),
    )
    op.add_column(
        "audit",
        sa.Column("hash", sa.Text(), comment="SHA-256 over the hash before and this entry"),
    )
    op.create_unique_constraint(op.f("uq_audit_seq"), "audit", ["seq"])
    op.create_table_comment("audit", "Append-only and hash-chained, by triggers of the migration.")
    op.execute(_TEXT)
    op.execute(_CHAIN)
    op.execute(_APPEND_ONLY)
    # Entries of earlier versions become the beginning of the chain.
    op.execute(
        """
        do $$ declare entry audit; place bigint := 0; before text := ''; begin
          for entry in select * from audit order by id loop
            place := place + 1;
            before := encode(sha256(convert_to(
              audit_entry_text(entry, place, before), 'UTF8')), 'hex');
            update audit set seq = place, hash = before where id = entry.id;
          end loop;
        end $$
        """
    )
    op.execute(
        "create constraint trigger audit_chain after insert on audit"
        " deferrable initially deferred for each row execute function audit_chain()"
    )
    op.execute(
        "create trigger audit_append_only before update or delete on audit"
        " for each row execute function audit_append_only()"
    )
    op.execute(
        "create trigger audit_no_truncate before truncate on audit"
        " for each statement execute function audit_append_only()"
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup made before the upgrade")
