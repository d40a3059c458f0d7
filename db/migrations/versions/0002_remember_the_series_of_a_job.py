"""Remember the series of a job that is about several."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('job_series',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=False),
    sa.Column('role', sa.String(length=32), nullable=False),
    sa.Column('series_id', sa.Integer(), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_job_series_job_id_jobs')),
    sa.ForeignKeyConstraint(['series_id'], ['series.id'], name=op.f('fk_job_series_series_id_series')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_job_series')),
    sa.UniqueConstraint('job_id', 'role', name=op.f('uq_job_series_job_id_role'))
    )
