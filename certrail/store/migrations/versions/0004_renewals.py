"""Renewals: why and when, the CA's suggestions, approvals, agents and sensors.

Revision: 0004
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy import Text
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _at(name: str, nullable: bool = True) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.add_column(
        "connectors",
        sa.Column("executor", Text, comment="agent or sensor that reaches it; null: any"),
    )
    for column in (
        sa.Column("auto_renew", sa.Boolean(), comment="null: as the profile says"),
        sa.Column("criticality", Text, nullable=False, server_default="normal"),
        sa.Column("executor", Text, comment="null: that of the target"),
        sa.Column(
            "renewal",
            postgresql.JSONB(astext_type=Text()),
            comment="why and when it renews, as the sweep decided last",
        ),
        _at("renewal_decided_at"),
    ):
        op.add_column("endpoints", column)
    op.create_index("ix_endpoints_next_renewal_at", "endpoints", ["next_renewal_at"])
    op.create_index("ix_endpoints_certificate_id", "endpoints", ["certificate_id"])
    op.create_check_constraint(
        op.f("ck_endpoints_criticality"),
        "endpoints",
        "criticality in ('critical', 'high', 'normal', 'low')",
    )
    for column in (
        sa.Column(
            "ended_because", Text, comment="superseded, approval-expired …; null: by itself"
        ),
        sa.Column(
            "approval",
            postgresql.JSONB(astext_type=Text()),
            comment="who may approve, who was asked, who decided",
        ),
        _at("approval_until"),
        sa.Column("waits_for", Text, comment="window: obtained, not installed yet"),
        _at("told_at"),
        sa.Column(
            "is_pinned",
            sa.Boolean(),
            nullable=False,
            server_default="false",
            comment="an operator moved it: the sweep does not",
        ),
    ):
        op.add_column("requests", column)
    op.create_table(
        "renewal_info",
        sa.Column("certificate_id", sa.UUID(), nullable=False),
        _at("window_start"),
        _at("window_end"),
        sa.Column("explanation_url", Text, nullable=False, server_default=""),
        _at("asked_at", nullable=False),
        _at("ask_again_at", nullable=False),
        sa.Column("error", Text, comment="why the CA could not be asked last"),
        sa.PrimaryKeyConstraint("certificate_id", name=op.f("pk_renewal_info")),
        sa.ForeignKeyConstraint(
            ["certificate_id"],
            ["certificates.id"],
            name=op.f("fk_renewal_info_certificate_id_certificates"),
        ),
        comment="When a CA wants its certificates renewed (RFC 9773).",
    )
    op.create_index("ix_renewal_info_ask_again_at", "renewal_info", ["ask_again_at"])
    op.create_table(
        "executors",
        sa.Column("pool", Text, nullable=False),
        sa.Column("name", Text, nullable=False),
        sa.Column("queues", postgresql.ARRAY(Text()), nullable=False, server_default="{}"),
        sa.Column("version", Text, nullable=False),
        sa.Column("host", Text, nullable=False),
        _at("started_at", nullable=False),
        _at("last_seen_at", nullable=False),
        _at("stopped_at"),
        _at("silent_since"),
        sa.PrimaryKeyConstraint("pool", "name", name=op.f("pk_executors")),
        comment="Agents and sensors: workers that run requests, and when they were heard of.",
    )


def downgrade() -> None:
    op.drop_table("executors")
    op.drop_table("renewal_info")
    for name in ("is_pinned", "told_at", "waits_for", "approval_until", "approval", "ended_because"):
        op.drop_column("requests", name)
    op.drop_constraint(op.f("ck_endpoints_criticality"), "endpoints")
    op.drop_index("ix_endpoints_certificate_id", "endpoints")
    op.drop_index("ix_endpoints_next_renewal_at", "endpoints")
    for name in ("renewal_decided_at", "renewal", "executor", "criticality", "auto_renew"):
        op.drop_column("endpoints", name)
    op.drop_column("connectors", "executor")
