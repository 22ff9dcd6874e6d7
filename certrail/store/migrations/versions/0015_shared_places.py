"""The shards of a job draw on the job's one number of places.

Revision: 0015
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "job_shards",
        sa.Column(
            "wanted",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="places that it could use now",
        ),
    )
    op.alter_column(
        "job_shards",
        "places",
        comment="of the job's places, those that it has while its lease lasts",
        existing_comment="0: not its turn yet",
    )
