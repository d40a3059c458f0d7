"""Give jobs parameters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What was made before had none.
    op.add_column('jobs', sa.Column('parameters', sa.Text(), server_default='', nullable=False))
