"""Remembers: tables, states, queries and migrations. It knows no images and no queue."""

from __future__ import annotations
