"""A CA that throttles pauses its budget for all workers.

Revision: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "budget_pauses",
        sa.Column("budget", sa.Text(), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("budget", name=op.f("pk_budget_pauses")),
        comment="Budgets of CAs that asked to be left alone; the latest moment of each.",
    )
