"""The UIDs that secondread makes: derived from what they name, and known again by themselves."""

from __future__ import annotations

import hashlib
import json

#: RFC 9562 section 5.8 leaves version 8's bits to its maker: our first 32 say who that is ("2ndR").
_ROOT = int.from_bytes(b"2ndR", "big")
#: PS3.5 B.2: a UUID as one decimal number under this root.
_PREFIX = "2.25."
#: 0x326E6452 followed by 96 bits has as many digits, whatever those are.
_DIGITS = len(str(_ROOT << 96))


def make(*parts: str) -> str:
    """The UID that the thing which `parts` name always has.

    A UUID-derived UID (PS3.5 B.2) of version 8 (RFC 9562): 32 bits are ours, 90 are of the digest of `parts`.
    """
    number = int.from_bytes(hashlib.sha256(json.dumps(parts).encode()).digest()[:16], "big")
    number = _ROOT << 96 | number & (1 << 96) - 1
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"{_PREFIX}{number}"


def is_ours(uid: str) -> bool:
    """Whether `make` made it, in any installation: who answers has no list of them."""
    digits = uid.removeprefix(_PREFIX)
    if len(digits) != _DIGITS or len(digits) == len(uid) or not digits.isdecimal():
        return False
    number = int(digits)
    return (number >> 96, number >> 76 & 0xF, number >> 62 & 0x3) == (_ROOT, 8, 2)
