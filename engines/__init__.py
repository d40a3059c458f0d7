"""Arrays in, findings out: model packages, inference runners, pre- and postprocessing."""

from __future__ import annotations
