"""Callers that got no association: told of once, and then once a minute however often they come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

#: Seconds for which callers of one address with one reason are only counted.
_QUIET = 60.0
#: Reasons that are remembered at once.
_MOST = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class TurnedAway:
    """A connection that got no association."""

    #: The caller's address, without its port.
    address: str
    #: AE titles as it gave them; "" where it gave none.
    calling: str
    called: str
    #: A sentence for people; no patient data.
    reason: str


@dataclass
class _Told:
    """What was told, until when it is only counted, and how often it came since."""

    last: TurnedAway
    until: float
    count: int = 0


class Complaints:
    """Passes on who was turned away; a caller that tries each second must not fill the log."""

    def __init__(self, tell: Callable[[TurnedAway], None]) -> None:
        self._tell = tell
        self._told: dict[tuple[str, str], _Told] = {}

    def tell(self, away: TurnedAway, now: float) -> None:
        """Tell of a caller, or count it where its like was told of a short while ago."""
        known = self._told.get((away.address, away.reason))
        if known is not None:
            known.count, known.last = known.count + 1, away
            return
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told[away.address, away.reason] = _Told(last=away, until=now + _QUIET)
        self._tell(away)

    def repeat(self, now: float) -> None:
        """Tell how many more came while they were only counted."""
        for key, known in [(key, known) for key, known in self._told.items() if now >= known.until]:
            if not known.count:
                del self._told[key]
                continue
            reason = f"{known.last.reason} ({known.count} more times in {_QUIET:.0f} s)"
            self._tell(replace(known.last, reason=reason))
            known.count, known.until = 0, now + _QUIET
