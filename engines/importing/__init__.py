"""Other people's models as packages. Only the import commands load this; what serves never does."""

from __future__ import annotations
