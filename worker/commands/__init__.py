"""The commands of `secondread`, grouped by what they are for."""

from __future__ import annotations
