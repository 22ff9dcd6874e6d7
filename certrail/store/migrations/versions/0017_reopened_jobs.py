"""A job that is retried is not stopped by failures from before, of endpoints left alone.

Revision: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "reopened_at",
            sa.DateTime(timezone=True),
            comment="failures before do not stop it",
        ),
    )
