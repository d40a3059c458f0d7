"""A missing answer -> a document that says so, for those who would take silence for "nothing found"."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage

from dicom_node import elements, headers, own_uids, selection
from dicom_node.errors import DataSetError
from dicom_node.results import codes, explicit, header, observer, reasons, references, source
from dicom_node.results.context import NOT_PERFORMED, Provenance
from engines.findings import Code

#: Our own title: those of CID 7000 (PS3.16) are titles of reports, and this is none.
TITLE = Code(value="AI-NOT-PERFORMED", scheme="99SECONDREAD", meaning="AI not performed")
#: PS3.16 has codes of reasons (CID 9300) and no concept that names one.
REASON = Code(value="REASON", scheme="99SECONDREAD", meaning="Reason why the AI was not performed")
SERIES = Code(value="112002", scheme="DCM", meaning="Series Instance UID")
LANGUAGE = Code(value="121049", scheme="DCM", meaning="Language of Content Item and Descendants")
ENGLISH = Code(value="en", scheme="RFC5646", meaning="English")

#: Elements before it say whose the image is; a header that reaches it was not cut off among those.
_IMAGE_PIXEL_GROUP = 0x00280000


@dataclass(frozen=True, kw_only=True, eq=False)
class Failure(Provenance):
    """One job's missing answer. Its UIDs are of the job and the reason: the same failure is the same document."""

    #: Those of the series' images that could be read (`headers_of`).
    headers: tuple[Dataset, ...]
    #: The job's stable word, e.g. "missing-slice".
    reason: str
    #: The sentence for people. No patient data.
    error: str

    @property
    def images(self) -> Sequence[Dataset]:
        """Those whose headers could be read."""
        return self.headers

    @property
    def part(self) -> str:
        """The algorithm did nothing."""
        return "Algorithm that was to analyse the images, and did not"

    def uid(self, *parts: str) -> str:
        """A UID that this job always gives to the thing that `parts` name, where it ends for this reason."""
        return own_uids.make(self.job_identity, *self._ending, *parts)

    @property
    def file_name(self) -> str:
        """As stable as the UIDs."""
        return f"{NOT_PERFORMED}-{self._ending[-1][:12]}.dcm"

    @cached_property
    def _ending(self) -> tuple[str, str]:
        return NOT_PERFORMED, hashlib.sha256(f"{self.reason}\n{self.error}".encode()).hexdigest()


def headers_of(paths: Sequence[Path]) -> tuple[Dataset, ...]:
    """The headers among the files of a series that say whose they are, though their pixels may be broken.

    All of them, since what they do not agree on cannot be said. Without any, a document would bear no name.
    """
    with headers.quietly():
        return tuple(ds for path in paths if (ds := _header(path)) is not None)


def _header(path: Path) -> Dataset | None:
    try:
        image = headers.read(path, whole=False)
    except DataSetError:
        return None
    selection.with_uid(image)
    named = all(elements.uid(image.ds, keyword) for keyword in source.NAMES)
    whole = any(tag >= _IMAGE_PIXEL_GROUP for tag in image.ds.keys())  # noqa: SIM118 - decodes nothing
    return image.ds if named and whole else None


def build(failure: Failure) -> Dataset:
    """A Basic Text SR (PS3.3 A.35.1): who did not analyse which series, and why, as a code and in words."""
    image = source.named(failure.headers[0])
    image.SOPClassUID = failure.headers[0].SOPClassUID
    # highdicom looks the class of its evidence up, and knows neither private ones nor retired ones.
    evidence = source.named(failure.headers[0])
    evidence.SOPClassUID = CTImageStorage
    document: Dataset = sr.EnhancedSR(
        evidence=[evidence],
        content=_content(failure, image),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[
            CodingSchemeIdentificationItem(
                designator=TITLE.scheme,
                name="secondread private codes",
                responsible_organization="secondread",
            )
        ],
        **header.constructor(failure, NOT_PERFORMED),
    )
    # highdicom has no class for it. What stands in the tree, both allow; of all SRs, most PACS know this one.
    document.SOPClassUID = document.file_meta.MediaStorageSOPClassUID = BasicTextSRStorage
    explicit.set_sequence(document, 0x0040A375, references.study(failure, [references.of_series([image])]))
    header.finish(document, failure, description(failure))
    return document


def description(failure: Failure) -> str:
    """The Series Description (LO, at most 64 characters): what viewers show comes first."""
    return f"{standing(failure)}: {failure.model.name} {failure.model.version}"[:64].replace("\\", "/")


def standing(failure: Failure) -> str:
    """What must be known before anything else."""
    return f"AI not performed{' (research)' if failure.model.research_only else ''}"


def words(failure: Failure) -> tuple[str, ...]:
    """What the document says, paragraph by paragraph."""
    model = failure.model
    return (
        f"AI not performed: {model.name} {model.version} did not analyse {_series(failure)}: "
        f"{reasons.of(failure.reason).words}.",
        "Nothing was looked for: this document says nothing about the patient, and is no negative result.",
        f"For the administrator: {failure.reason}: {failure.error}",
        "Where the model answers later, its report refers to this document and takes its place.",
    )


def _series(failure: Failure) -> str:
    """The series as a viewer lists it."""
    number = elements.text(failure.header, "SeriesNumber")
    called = elements.text(failure.header, "SeriesDescription")
    return f"series {number or 'without number'}" + (f" ({called})" if called else "")


def _content(failure: Failure, image: Dataset) -> Dataset:
    """The content tree; no template of PS3.16 is for it."""
    root: Dataset = sr.ContainerContentItem(name=codes.concept(TITLE), is_content_continuous=False)
    root.ContentSequence = sr.ContentSequence(
        [
            _code(LANGUAGE, ENGLISH, "HAS CONCEPT MOD"),
            *observer.device(failure),
            _code(REASON, reasons.of(failure.reason).code, "CONTAINS"),
            *(
                sr.TextContentItem(
                    name=codes.concept(codes.COMMENT), value=paragraph, relationship_type="CONTAINS"
                )
                for paragraph in words(failure)
            ),
            sr.UIDRefContentItem(
                name=codes.concept(SERIES), value=image.SeriesInstanceUID, relationship_type="CONTAINS"
            ),
            sr.ImageContentItem(
                name=codes.concept(codes.SOURCE_IMAGE),
                referenced_sop_class_uid=image.SOPClassUID,
                referenced_sop_instance_uid=image.SOPInstanceUID,
                relationship_type="CONTAINS",
            ),
        ]
    )
    return root


def _code(name: Code, value: Code, relationship: str) -> sr.CodeContentItem:
    return sr.CodeContentItem(
        name=codes.concept(name), value=codes.concept(value), relationship_type=relationship
    )
