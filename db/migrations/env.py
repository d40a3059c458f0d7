"""Alembic's entry: runs the revisions on the connection that `db.migrate` hands over."""

from __future__ import annotations

from alembic import context

import db.models  # noqa: F401 - fills the metadata
from db.base import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
