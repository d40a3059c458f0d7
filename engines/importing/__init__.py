"""Other people's models as packages. Only commands about packages load this; what serves never does."""

from __future__ import annotations
