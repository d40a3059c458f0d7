"""Keep the boxes of detectors."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = '0005'
down_revision = '0004'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('boxes',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('job_id', sa.Integer(), nullable=False),
    sa.Column('key', sa.String(length=64), nullable=False),
    sa.Column('label', sa.String(length=64), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('code_value', sa.String(length=16), nullable=False),
    sa.Column('code_scheme', sa.String(length=16), nullable=False),
    sa.Column('code_meaning', sa.String(length=64), nullable=False),
    sa.Column('score', sa.Double(), nullable=False),
    sa.Column('slice', sa.Integer(), nullable=False),
    sa.Column('low', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('high', sa.JSON(none_as_null=True), nullable=False),
    sa.Column('size_mm', sa.JSON(none_as_null=True), nullable=False),
    sa.ForeignKeyConstraint(['job_id'], ['jobs.id'], name=op.f('fk_boxes_job_id_jobs')),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_boxes'))
    )
    with op.batch_alter_table('boxes', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_boxes_job_id'), ['job_id'], unique=False)
        batch_op.create_index('ix_boxes_key_job_id_score', ['key', 'job_id', 'score'], unique=False)
        batch_op.create_index('ix_boxes_code_value_job_id_score', ['code_value', 'job_id', 'score'], unique=False)
