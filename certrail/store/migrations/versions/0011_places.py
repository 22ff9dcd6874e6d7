"""One certificate in several places.

Revision: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "endpoints",
        sa.Column(
            "also_on",
            postgresql.JSONB(),
            server_default="[]",
            nullable=False,
            comment="further places of the same certificate",
        ),
    )
    op.create_table(
        "request_places",
        sa.Column("request_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, comment="0: the endpoint's own"),
        sa.Column("name", sa.Text(), nullable=False, comment="connector"),
        sa.Column("staged", postgresql.JSONB(), comment="as in requests, of the further places"),
        sa.Column("is_installed", sa.Boolean(), server_default="false", nullable=False),
        sa.Column("detail", sa.Text(), comment="what was done there, or why it was not"),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_request_places_request_id_requests")
        ),
        sa.PrimaryKeyConstraint("request_id", "number", name=op.f("pk_request_places")),
        comment="Where the certificate of a request is installed, if that is several places.",
    )
