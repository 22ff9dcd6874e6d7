"""Endpoints whose certificate is on several machines are found by each of these.

Revision: 0014
"""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "create index ix_endpoints_also_on on endpoints (location) where also_on <> '[]'::jsonb"
    )
