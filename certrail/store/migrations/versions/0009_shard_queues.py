"""Shards for the executors that alone reach their endpoints.

Revision: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "job_shards",
        sa.Column(
            "queue",
            sa.Text(),
            nullable=True,
            comment="of the executor that alone reaches the endpoints",
        ),
    )
    op.add_column(
        "job_shards",
        sa.Column(
            "places",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="0: not its turn yet",
        ),
    )
