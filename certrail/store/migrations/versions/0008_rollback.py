"""Requests that go back to the certificate before.

Revision: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("ck_requests_action"), "requests", type_="check")
    op.create_check_constraint(
        op.f("ck_requests_action"),
        "requests",
        "action in ('enroll', 'renew', 'reissue', 'redeploy', 'rollback')",
    )
