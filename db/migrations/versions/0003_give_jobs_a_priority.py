"""Give jobs a priority."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    # What was made before is routine (1).
    op.add_column('jobs', sa.Column('priority', sa.SmallInteger(), server_default='1', nullable=False))
    op.create_index(
        'ix_jobs_queued',
        'jobs',
        ['state', 'priority', 'id'],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        'ix_jobs_urgent',
        'jobs',
        ['id'],
        sqlite_where=sa.text("state = 'delivering' AND priority = 0"),
        postgresql_where=sa.text("state = 'delivering' AND priority = 0"),
    )
