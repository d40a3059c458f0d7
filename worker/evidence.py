"""What speaks for a study, or a series of it, being complete: a ladder of signals, the strongest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from db.models import Association
from db.refusals import Missing
from worker import words


class Signal(StrEnum):
    """What decided, strongest first."""

    #: A storage commitment request names every image that is here, and no other.
    REQUEST = "storage commitment request"
    #: Its sender has as many images as arrived.
    COUNT = "count of the sender"
    #: Every association that carried it was released, and a short quiet time passed.
    RELEASE = "associations released"
    #: Nothing was heard for a long time.
    SILENCE = "long quiet time"


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long is waited for what."""

    quiet: timedelta
    long_quiet: timedelta
    #: Names of the peers that are asked for their own number of images.
    counting: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Count:
    """What a sender said of its images of a study; the JSON of `Study.counted`."""

    peer: str
    #: How it was asked: "cfind" or "qido".
    by: str
    #: Series Instance UID -> images that were here when it was asked.
    arrived: Mapping[str, int]
    #: False while it is being asked.
    answered: bool = False
    #: Series Instance UID -> images that it has; empty where it counts whole studies only.
    series: Mapping[str, int]
    #: None where it does not know the study, or gave no answer.
    total: int | None = None
    #: Why there is no number, in words; "" where there is one.
    problem: str = ""
    #: How often it was asked since something last arrived.
    tries: int = 1

    @classmethod
    def of(cls, counted: dict[str, Any] | None) -> Count | None:
        """From a row."""
        return cls(**counted) if counted else None

    def as_dict(self) -> dict[str, Any]:
        """For a row."""
        return asdict(self)

    @property
    def source(self) -> str:
        """Who said so."""
        return f"{self.peer} ({'QIDO-RS' if self.by == 'qido' else 'C-FIND'})"


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A study, or one series of it, with what is known of its completeness."""

    #: A series may be complete before its study, though never by mere silence.
    whole: bool
    #: Of its study: a sender whose request was not its last word may do so again.
    revision: int
    #: Series Instance UID -> images here; our own results among them count for nothing.
    arrived: Mapping[str, int]
    #: When it was last heard of: an image, or the end of an association that carried it.
    last_sign: datetime
    #: The associations that carried it; not all where a start-up scan found files.
    carriers: Sequence[Association]
    all_carriers_known: bool
    #: Images that were refused on these associations and did not come since.
    refused: Missing
    #: Images that storage commitment requests name: those that are here, and those that are not.
    named: int
    absent: int
    #: The sender's count, where it was asked.
    count: Count | None

    @property
    def images(self) -> int:
        """Images that are here."""
        return sum(self.arrived.values())

    @property
    def open(self) -> list[Association]:
        """Associations that may bring more of it."""
        return [row for row in self.carriers if row.outcome == "open"]

    @property
    def is_requested(self) -> bool:
        """Whether its sender asked us to commit to just what is here."""
        return 0 < self.named == self.images and not self.absent

    @property
    def counted(self) -> int | None:
        """The sender's number of images, asked since the last one came; None where there is none.

        One that lacks images that are here, and has others that are not, still has more.
        """
        said = self.count
        if said is None or said.total is None or not self.is_current(said):
            return None
        if self.whole:
            lacking = sum(max(0, images - self.arrived.get(uid, 0)) for uid, images in said.series.items())
            return max(said.total, self.images + lacking) if lacking else said.total
        return (
            sum(said.series[uid] for uid in self.arrived)
            if self.arrived.keys() <= said.series.keys()
            else None
        )

    def is_current(self, said: Count) -> bool:
        """Whether nothing has come since the sender was asked."""
        if self.whole:
            return dict(said.arrived) == dict(self.arrived)
        return all(said.arrived.get(uid) == images for uid, images in self.arrived.items())

    def awaits_count(self, counting: frozenset[str]) -> bool:
        """Whether a sender that is asked has not answered since the last image came."""
        said = self.count
        if said is not None and self.is_current(said):
            return not said.answered
        return any(row.peer in counting for row in self.carriers)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The strongest signal that may decide, and what it still asks for."""

    signal: Signal
    needed: timedelta
    #: Associations that must end first.
    open: Sequence[Association]
    #: What a sender has and did not come, in words.
    lacking: Sequence[str] = ()
    #: Why the end of the associations says nothing, in words.
    unsure: Sequence[str] = ()


def claim(scope: Scope, patience: Patience) -> Claim:
    """Climb down the ladder to the first signal that holds or may come to hold."""
    long = max(patience.quiet, patience.long_quiet)
    if scope.is_requested:
        # A sender that asks once for each image would otherwise make a revision of each.
        needed = timedelta(0) if scope.revision == 1 else patience.quiet
        return Claim(signal=Signal.REQUEST, needed=needed, open=())
    lacking = _lacking(scope)
    if not lacking and scope.counted == scope.images:
        return Claim(signal=Signal.COUNT, needed=patience.quiet, open=())
    unsure = _unsure(scope)
    if lacking or unsure:
        return Claim(signal=Signal.SILENCE, needed=long, open=scope.open, lacking=lacking, unsure=unsure)
    needed = long if scope.awaits_count(patience.counting) else patience.quiet
    return Claim(signal=Signal.RELEASE, needed=needed, open=scope.open)


def _lacking(scope: Scope) -> list[str]:
    """What a sender says to have, and did not come."""
    found = []
    if scope.absent:
        found.append(f"{scope.absent} images that a storage commitment request names are not here")
    if scope.count is not None and scope.counted is not None and scope.counted > scope.images:
        found.append(
            f"{scope.count.source} has {words.count(scope.counted, 'image')}, {scope.images} arrived"
        )
    return found


def _unsure(scope: Scope) -> list[str]:
    """Why the end of the associations says nothing."""
    found = [
        f"an association was {row.outcome}"
        for row in scope.carriers
        if row.outcome not in ("released", "open")
    ]
    found += (
        [f"{words.count(scope.refused.count, 'image was', 'images were')} refused"]
        if scope.refused.count
        else []
    )
    found += [] if scope.all_carriers_known else ["nobody is known to have sent it"]
    return list(dict.fromkeys(found))


def judge(scope: Scope, patience: Patience, now: datetime) -> dict[str, Any] | None:
    """The evidence that it is complete; None where that is not established yet."""
    decided = claim(scope, patience)
    silent = now - scope.last_sign
    if decided.open or silent < decided.needed:
        return None
    if decided.signal is Signal.SILENCE and not scope.whole:
        return None
    return {
        "signal": decided.signal.value,
        "needed_seconds": decided.needed.total_seconds(),
        "quiet_seconds": round(silent.total_seconds(), 3),
        "instances": scope.images,
        "series": len(scope.arrived),
        "associations": [
            {"id": row.id, "peer": row.peer or row.calling_ae_title, "outcome": row.outcome}
            for row in scope.carriers
        ],
    } | _numbers(scope, decided.signal)


def due_at(scope: Scope, patience: Patience) -> datetime | None:
    """When it would be complete if nothing more happened; None where something must happen first."""
    decided = claim(scope, patience)
    if decided.open or (decided.signal is Signal.SILENCE and not scope.whole):
        return None
    return scope.last_sign + decided.needed


def _numbers(scope: Scope, signal: Signal) -> dict[str, Any]:
    """The numbers behind the signal, and those that speak against it."""
    if signal is Signal.REQUEST:
        return {"named": scope.named}
    found: dict[str, Any] = {}
    said = scope.count
    if said is not None and scope.counted is not None:
        found |= {"counted": scope.counted, "counted_by": said.source}
    elif said is not None and said.problem:
        found |= {"not_counted": said.problem}
    if signal is Signal.COUNT:
        return found
    if scope.absent:
        found |= {"named": scope.named, "absent": scope.absent}
    if scope.refused.count:
        statuses = ", ".join(f"0x{status:04X}" for status in scope.refused.statuses)
        found |= {"refused": scope.refused.count, "refused_with": statuses}
    more = max(0, (scope.counted or 0) - scope.images)
    missing = max(scope.absent, scope.refused.count, more)
    return found | ({"missing": missing} if missing else {})


def in_words(evidence: Mapping[str, Any]) -> str:
    """What decided, with its numbers."""
    said = (
        f"{evidence['signal']}, quiet for {evidence['quiet_seconds']:.1f} s "
        f"(needed {evidence['needed_seconds']:.0f} s)"
    )
    if "named" in evidence:
        said += f"; {evidence['named']} of {evidence['instances']} images were named in requests"
    if "counted" in evidence:
        said += f"; {evidence['counted_by']} has {evidence['counted']}, {evidence['instances']} arrived"
    if "not_counted" in evidence:
        said += f"; no number of images: {evidence['not_counted']}"
    return said


def shortfall(evidence: dict[str, Any] | None) -> str:
    """What the evidence says is missing of a closed study, in words; "" where nothing is.

    Not a `problem`: an image that was refused or named is known by its UID only, and may be another study's.
    """
    if not evidence or not evidence.get("missing"):
        return ""
    arrived = evidence["instances"]
    found = []
    if evidence.get("absent"):
        found.append(
            f"{words.count(evidence['absent'], 'image')} that its storage commitment request names never came"
        )
    if evidence.get("counted", 0) > arrived:
        found.append(
            f"{evidence['counted_by']} has {words.count(evidence['counted'], 'image')}, {arrived} arrived"
        )
    if evidence.get("refused"):
        statuses = evidence["refused_with"]
        found.append(
            f"{words.count(evidence['refused'], 'image')} refused on its associations ({statuses}) never came"
        )
    return f"{'; '.join(found)}; the results are of the {arrived} that arrived: send the study again"
