"""What is made here beside what other programs and libraries make of it, or say of it; none of them is a server."""

from __future__ import annotations
