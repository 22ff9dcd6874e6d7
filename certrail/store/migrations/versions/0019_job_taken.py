"""When a worker took a job last: the pace of its present turn counts from then.

Revision: 0019
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True))
    op.execute("update jobs set taken_at = started_at where status in ('running', 'paused')")
