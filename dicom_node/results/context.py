"""What all result objects of one job share: their source, who made them, and their identities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone, tzinfo
from functools import cached_property
from typing import Any, get_args

from pydicom.dataset import Dataset

from dicom_node import elements, frame_header, own_uids
from dicom_node.errors import SeriesError
from dicom_node.results import source
from dicom_node.series import SeriesImages
from engines.findings import ModelIdentity
from engines.manifest_entries import ResultKind

#: The order in which a study's series list shows the kinds; also the last digits of the Series Number.
KINDS: tuple[str, ...] = get_args(ResultKind)

#: Stands where an answer is missing; no model lists it (`not_performed.py`).
NOT_PERFORMED = "not-performed"

#: Series Numbers that the kinds of one answer may take; the last one is that of `NOT_PERFORMED`.
_PLACES = 20

#: What every image of one source series must agree on before a result may claim to belong to it.
_ONE_SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")

#: Hours and minutes: "+0100".
_OFFSET = re.compile("[+-][0-9]{2}[0-5][0-9]")

#: Largest value of an IS element (PS3.5 Table 6.2-1).
_IS_MAXIMUM = 2**31 - 1

#: Characters that no text may hold (PS3.5 6.1.3), or that show nothing.
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f]")
#: Of the sentence that says what an answer was made on.
_LONGEST_ENGINE = 600


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A report of ours, as another object refers to it (PS3.3 Table C.17-3)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Predecessor:
    """The earlier answer of the same model about the same series, whose place a result takes."""

    #: Its place among these answers; 1 is the first one's.
    revision: int
    #: The time that its objects bear; aware UTC.
    created_at: datetime
    #: None where it had no report.
    report: Report | None


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierValue:
    """One number of an earlier result."""

    #: The measurement's key, and the label of its segment ("" where it is of several, or of none).
    key: str
    segment: str
    value: float
    #: UCUM.
    unit: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierValues:
    """What the same model measured in the same patient's latest earlier study."""

    #: As in the study: YYYYMMDD (PS3.5 6.2, DA).
    study_date: str
    series_description: str
    model_version: str
    values: tuple[EarlierValue, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Provenance:
    """Whose an object of a job is and who made it: what every object says, whatever it holds.

    Two with the same fields make byte-identical objects: a retried job sends what it sent before.
    """

    #: Digest of model, source instances and parameters; every UID is derived from it.
    job_identity: str
    model: ModelIdentity
    #: Aware UTC.
    created_at: datetime
    secondread_version: str
    #: Time zone of the dates written, where the source does not name its own; None: this machine's.
    zone: tzinfo | None = None
    #: None where this is the first answer.
    predecessor: Predecessor | None = None
    #: None where no earlier study of this patient is known.
    comparison: EarlierValues | None = None
    #: Of the report in words: one of `wording.LANGUAGES`.
    language: str = "en"

    def __post_init__(self) -> None:
        if self.created_at.utcoffset() is None:
            raise ValueError("created_at must be an aware datetime")
        if not self.images:
            raise SeriesError("empty", "the source series has no images")
        for keyword in source.NAMES:
            if not all(elements.uid(image, keyword) for image in self.images):
                raise SeriesError(
                    "no-identity", f"an image has no {keyword}, or several: nothing can refer to it"
                )

    @property
    def images(self) -> Sequence[Dataset]:
        """Headers of images of the source series, as many as are known."""
        raise NotImplementedError

    @property
    def part(self) -> str:
        """What the algorithm did, for its item among the contributing equipment."""
        raise NotImplementedError

    def uid(self, *parts: str) -> str:
        """A UID that this job always gives to the thing that `parts` name."""
        return own_uids.make(self.job_identity, *parts)

    @property
    def revision(self) -> int:
        """The place of this answer among those of the same model about the same series; 1 is the first."""
        return 1 if self.predecessor is None else self.predecessor.revision + 1

    @property
    def device_uid(self) -> str:
        """The model's UID: a retrained model is another device (IHE AIR)."""
        return own_uids.make("device", self.model.digest)

    def series_number(self, kind: str) -> int:
        """A Series Number that sorts behind the source's, the same for every retry."""
        number = int(elements.number(self.header, "SeriesNumber") or 0)
        place = KINDS.index(kind) if kind != NOT_PERFORMED else _PLACES - 1
        # Those of a later answer behind those that they replace, as far as three digits reach.
        own = 901 + min(self.revision - 1, 3) * _PLACES + place
        # Viewers sort the series list by this number: 3 -> 3901, 3902.
        return number * 1000 + own if 0 <= number <= (_IS_MAXIMUM - own) // 1000 else 99000 + own

    @cached_property
    def header(self) -> Dataset:
        """The first source image's header, all text decoded, so that it can be written in UTF-8."""
        return source.header(self.images[0])

    @cached_property
    def mixed(self) -> tuple[str, ...]:
        """Keywords in which the source images differ, of those that say whose they are; there should be none."""
        return tuple(
            keyword
            for keyword in _ONE_SERIES
            if len({elements.text(image, keyword) for image in self.images}) > 1
        )

    @property
    def timezone_offset(self) -> str | None:
        """The source's Timezone Offset From UTC (0008,0201), e.g. "+0100"; None where it names none."""
        text = str(self.header.get("TimezoneOffsetFromUTC") or "").strip()
        return text if _offset(text) is not None else None

    @property
    def local_time(self) -> datetime:
        """`created_at` on the clock of the study's dates.

        Timezone Offset From UTC holds for every date in the object, the study's own included
        (PS3.3 C.12.1.1.8), so ours must be on the clock that the source uses.
        """
        return self.on_study_clock(self.created_at)

    def on_study_clock(self, moment: datetime) -> datetime:
        """A moment as the study's dates would say it."""
        return moment.astimezone(_offset(self.timezone_offset or "") or self.zone)


@dataclass(frozen=True, kw_only=True, eq=False)
class ResultContext(Provenance):
    """Where a job's results belong and where they come from."""

    source: SeriesImages
    #: Of the model's further series, which lie beside the source: a header for each image, by role.
    others: Mapping[str, Sequence[Dataset]] = field(default_factory=dict)
    #: The backend that answered, e.g. "openvino 2026.4 CPU float32".
    engine: str
    #: What the model was given for this job, by name.
    parameters: Mapping[str, Any] = field(default_factory=dict)
    #: Documents at a destination that say that this model was not performed on this series; no longer true.
    announced: tuple[Report, ...] = ()

    @property
    def images(self) -> Sequence[Dataset]:
        """Every source image, in slice order."""
        return self.source.instances

    @property
    def ran_on(self) -> str:
        """The backend as objects say it: one line, not endless; a reason in it may quote a library's own words.

        No backslash, which parts values (PS3.5 6.2) and which highdicom takes in no text.
        """
        line = _CONTROL.sub(" ", self.engine.encode("utf-8", "replace").decode()).replace("\\", "/")
        line = " ".join(line.split())
        return line if len(line) <= _LONGEST_ENGINE else line[: _LONGEST_ENGINE - 3].rstrip() + "..."

    @property
    def part(self) -> str:
        """The algorithm answered."""
        return f"Algorithm that analysed the images, on {self.ran_on}"

    @property
    def replaced_documents(self) -> tuple[Report, ...]:
        """The documents whose place this answer's report takes."""
        earlier = self.predecessor.report if self.predecessor is not None else None
        return self.announced if earlier is None else (earlier, *self.announced)

    @cached_property
    def stub(self) -> Dataset:
        """The first source image as highdicom needs to know it."""
        return source.stub(self.source)

    @property
    def frame_of_reference_uid(self) -> str:
        """The Frame of Reference that masks are placed in; "" where the source has none."""
        return self.source.volume.geometry.frame_of_reference_uid or ""

    def source_slices(self) -> list[tuple[str, int | None]]:
        """SOP Instance UID of each slice, in their order, with its frame number where it is one of several."""
        return [frame_header.key(ds) for ds in self.source.datasets]

    def source_uids(self) -> list[str]:
        """SOP Instance UIDs of the source, each once."""
        return [str(ds.SOPInstanceUID) for ds in self.source.instances]

    def looked_at(self) -> list[Sequence[Dataset]]:
        """Every series that the model looked at, the source first: a header for each image."""
        return [self.source.instances, *self.others.values()]


def _offset(text: str) -> timezone | None:
    """The time zone that "+0100" names; None where the text is not one (PS3.3 C.12.1.1.8)."""
    if not _OFFSET.fullmatch(text):
        return None
    delta = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-delta if text[0] == "-" else delta) if delta < timedelta(hours=24) else None
