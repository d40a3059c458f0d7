"""Speaks DICOM: receives instances, makes volumes of series, writes result objects, sends them."""

from __future__ import annotations
