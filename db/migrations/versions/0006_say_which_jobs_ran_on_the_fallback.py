"""Say which jobs ran on the fallback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0006'
down_revision = '0005'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Beside `engine`, which is too short for a reason: SQLite cannot widen a column that others refer to.
    op.add_column('jobs', sa.Column('fallback', sa.Text(), server_default='', nullable=False))
