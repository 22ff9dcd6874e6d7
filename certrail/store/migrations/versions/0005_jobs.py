"""Bulk jobs: their members, their shards, and who holds them.

Revision: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATUSES = "'scheduled', 'running', 'paused', 'completed', 'failed', 'cancelled'"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("requested_by", sa.Text(), server_default="", nullable=False))
    op.add_column("jobs", sa.Column("run_count", sa.Integer(), server_default="0", nullable=False))
    op.add_column("jobs", sa.Column("lease_owner", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    for wish in ("pause_requested", "cancel_requested"):
        op.add_column("jobs", sa.Column(wish, sa.Boolean(), server_default="false", nullable=False))
    op.add_column(
        "jobs",
        sa.Column(
            "stop_code",
            sa.Text(),
            nullable=True,
            comment="why it begins no more endpoints, by itself",
        ),
    )
    op.add_column("jobs", sa.Column("stop_message", sa.Text(), nullable=True))
    op.create_check_constraint(op.f("ck_jobs_status"), "jobs", f"status in ({_STATUSES})")
    op.create_table(
        "job_shards",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("flow_run_id", sa.UUID(), nullable=True),
        sa.Column(
            "task_run_id",
            sa.UUID(),
            nullable=True,
            comment="in the job's run; its endpoints' parent",
        ),
        sa.Column("run_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_shards_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_shards")),
        comment="Endpoints of a job that one worker takes together.",
    )
    op.create_table(
        "job_members",
        sa.Column("job_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("wave", sa.Integer(), nullable=True),
        sa.Column("shard", sa.Integer(), nullable=True),
        sa.Column("request_id", sa.UUID(), nullable=True),
        sa.Column("reason_code", sa.Text(), nullable=True, comment="why it does not take part"),
        sa.Column("reason_message", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(request_id is null) = (reason_code is not null)",
            name=op.f("ck_job_members_takes_part_or_says_why"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_members_job_id")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_job_members_request_id")
        ),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_job_members")),
        sa.UniqueConstraint("job_id", "location", name=op.f("uq_job_members_job_id_location")),
        sa.UniqueConstraint("request_id", name=op.f("uq_job_members_request_id")),
        comment="The endpoints of a job in their order, frozen when it was made.",
    )
    op.create_index(
        op.f("ix_job_members_job_id_shard"), "job_members", ["job_id", "shard"], unique=False
    )


def downgrade() -> None:
    raise NotImplementedError("restore the backup that was made before the upgrade")
