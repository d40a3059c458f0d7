"""Lengths that DICOM and our digests fix."""

from __future__ import annotations

from sqlalchemy import String

#: A DICOM UID has at most 64 characters (PS3.5 9.1).
UID = String(64)
#: SHA-256, lower-case hex.
DIGEST = String(64)
