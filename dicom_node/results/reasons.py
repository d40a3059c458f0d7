"""Why an analysis was not performed: the job's stable word -> a standard code, and words for a radiologist."""

from __future__ import annotations

from dataclasses import dataclass

from engines.findings import Code


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """Why there is no answer."""

    #: Of CID 9300 "Procedure Discontinuation Reason" (PS3.16).
    code: Code
    #: The end of "The series was not analysed: ...".
    words: str


_INCOMPLETE = Code(value="110523", scheme="DCM", meaning="Object Set incomplete")
_UNSUPPORTED = Code(value="110522", scheme="DCM", meaning="Object Types not supported")
_MALFORMED = Code(value="110521", scheme="DCM", meaning="Objects incorrectly formatted")
_EQUIPMENT = Code(value="110501", scheme="DCM", meaning="Equipment failure")
_RESOURCE = Code(value="110527", scheme="DCM", meaning="Resource inadequate")
_UNSPECIFIED = Code(value="110513", scheme="DCM", meaning="Discontinued for unspecified reason")

_ROWS: tuple[tuple[Code, dict[str, str]], ...] = (
    (
        _INCOMPLETE,
        {
            "empty": "it has no images",
            "missing-slice": "at least one image is missing",
            "no-files": "it has no images",
            "no-pixel-data": "an image has no pixels",
            "single-slice": "it has one image only",
            "too-few-moments": "it lacks volumes over time (or b-values, echoes) that the model looks at",
            "truncated": "an image did not arrive whole",
        },
    ),
    (
        _UNSUPPORTED,
        {
            "colour": "its images are in colour",
            "gantry-tilt": "its images are tilted against their direction (gantry tilt)",
            "implausible-spacing": "its images lie at implausible distances",
            "inverted-grey": "its grey values are inverted",
            "irregular-spacing": "its images lie at unequal distances",
            "mixed-frame-of-reference": "its images are in unlike frames of reference",
            "mixed-orientation": "its images lie in unlike directions",
            "mixed-size": "its images are of unlike size",
            "modality-lut": "its grey values are in a table that is not supported",
            "multi-frame": "it is a multi-frame image",
            "no-frame-of-reference": "its images have no frame of reference",
            "no-geometry": "its images do not say where they are in the patient",
            "not-an-image": "it holds objects that are no images",
            "repeated-position": "several images lie at one place",
            "several-images": "it has several images, and the model takes one",
            "unlike-moments": "its volumes over time (or b-values, echoes) do not lie at one place",
        },
    ),
    (
        _MALFORMED,
        {
            "frame-count": "its frames are not as many as it says",
            "no-identity": "its images do not say which they are, or of which study and series",
            "no-suv": "its headers do not tell its standardised uptake values",
            "non-finite": "an image has values that are no numbers",
            "not-dicom": "a file cannot be read as DICOM",
            "repeated-instance": "several images have one identifier",
            "undecodable": "an image cannot be decompressed",
            "unknown-moments": "its images do not say which time, b-value or echo they are of",
        },
    ),
    (
        _EQUIPMENT,
        {
            "engine": "the model failed on it",
            "gate": "the result did not pass its check, and was kept back",
            "ragged-mask": "what the model marked is too ragged to be outlined",
            "storage": "the system's storage failed",
            "unexpected": "the system failed",
            "worker-lost": "the system failed repeatedly",
        },
    ),
    (
        _RESOURCE,
        {
            "no-model": "the model was not available",
            "parameters": "the model that took the former one's place cannot be asked the same",
            "time-limit": "it took longer than it may",
        },
    ),
)

_REASONS = {word: Reason(code=code, words=words) for code, rows in _ROWS for word, words in rows.items()}


def of(word: str) -> Reason:
    """The reason that a job's word stands for; an unspecified one where the word is new."""
    return _REASONS.get(word) or Reason(code=_UNSPECIFIED, words=f"{word or 'the reason is not known'}")
