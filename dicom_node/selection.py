"""Which files of a series make its volume: one study, one kind of image, nothing twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage
from pydicom.valuerep import VR

from dicom_node import dimensions, elements, encoding, functional_groups, pixels
from dicom_node.decoding import Decoders
from dicom_node.errors import SeriesError
from dicom_node.frame_header import frame_number
from dicom_node.geometry import Plane, Stack
from dicom_node.headers import PIXEL_TAGS, ImageFile

#: What all files of one series share, widest first, and the reason where they do not.
_SHARED = (
    ("PatientID", "mixed-patient", "patients", "Check the study for a mix-up before anything else."),
    ("StudyInstanceUID", "mixed-study", "studies", "Give the files of one study at a time."),
    ("SeriesInstanceUID", "mixed-series", "series", "Give the files of one series at a time."),
)

#: Segmentation, and Label Map Segmentation (PS3.6 A), which pydicom does not name yet.
_SEGMENTATIONS = (SegmentationStorage, "1.2.840.10008.5.1.4.1.1.66.7")


def refuse_mixture(images: Sequence[ImageFile]) -> None:
    """Raise SeriesError where the files are not of one patient, study and series."""
    for keyword, reason, plural, remedy in _SHARED:
        counts = Counter(elements.text(image.ds, keyword) for image in images)
        if len(counts) > 1:
            raise SeriesError(
                reason,
                f"The {len(images)} files belong to {len(counts)} {plural} ({_largest(counts)} files). "
                f"{remedy}",
            )
    for keyword in _unlike(images):
        raise SeriesError(
            "mixed-patient",
            f"The {len(images)} files have one Patient ID and more than one {keyword}: whose they are is not sure. "
            "Check the study for a mix-up before anything else.",
        )


def _unlike(images: Sequence[ImageFile]) -> Iterator[str]:
    """What says that files of one Patient ID are of several patients; an element that is missing says nothing.

    An ID is its issuer's (PS3.3 C.7.1.1). A name may be spelt anew under an ID; without one it is all there is.
    """
    named = any(elements.text(image.ds, "PatientID") for image in images)
    for keyword in ("IssuerOfPatientID", "PatientBirthDate", *(() if named else ("PatientName",))):
        if len({elements.text(image.ds, keyword) for image in images} - {""}) > 1:
            yield keyword


def one_frame_of_reference(images: Sequence[ImageFile]) -> list[str]:
    """Raise SeriesError where positions cannot be compared: "mixed-frame-of-reference".

    Some anonymisers give every image a frame of reference of its own; that passes with a note.
    """
    counts = Counter(elements.text(image.ds, "FrameOfReferenceUID") for image in images)
    if len(counts) == len(images) > 2:
        return ["every image has a frame of reference of its own: taken as one"]
    if len(counts) > 1:
        raise SeriesError(
            "mixed-frame-of-reference",
            f"The {len(images)} images have {len(counts)} frames of reference ({_largest(counts)} images): "
            "their positions cannot be compared, the patient was moved in between. Send series apart.",
        )
    return []


def _largest(counts: Counter[str]) -> str:
    return ", ".join(str(count) for _, count in counts.most_common(5))


def refuse_unusable(images: Sequence[ImageFile], *, planar: bool, clip: bool = False) -> None:
    """Raise SeriesError where an image has no pixels, or undescribed frames unless it is a `clip`, or is not plainly
    grey unless `planar`.
    """
    for reason, is_so, message in _UNUSABLE if planar else (*_UNUSABLE, *_NOT_PLAIN):
        if clip and is_so is _has_frames_of_no_place:
            continue
        affected = [image for image in images if is_so(image)]
        if affected:
            first = elements.name(affected[0].ds).lower()
            raise SeriesError(reason, f"{len(affected)} of {len(images)} objects (first: {first}): {message}")


def without_localizers(images: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Set localizer images aside where others remain (Image Type value 3, PS3.3 C.7.6.1.1.2)."""
    others = [image for image in images if "LOCALIZER" not in elements.words(image.ds, "ImageType")]
    aside = len(images) - len(others)
    if not others or not aside:
        return list(images), []
    return others, [f"{aside} localizer image{'s' if aside > 1 else ''} set aside"]


def without_repeats(images: Sequence[ImageFile], decoders: Decoders) -> tuple[list[ImageFile], list[str]]:
    """Keep one of several copies of an instance's image; raises "repeated-instance" where they differ."""
    by_uid: dict[Hashable, list[ImageFile]] = defaultdict(list)
    for index, image in enumerate(images):
        uid = elements.text(image.ds, "SOPInstanceUID")
        by_uid[(uid, frame_number(image.ds)) if uid else index].append(image)
    for group in by_uid.values():
        if len({_content(image, decoders) for image in group} if len(group) > 1 else ()) > 1:
            raise SeriesError(
                "repeated-instance",
                f"{len(group)} unlike images carry one SOP Instance UID: at least one was changed without a "
                "new UID. Find out which is right and send the series again.",
            )
    kept = [group[0] for group in by_uid.values()]
    return kept, _repeat_note(len(images) - len(kept), "sent twice")


#: What helps where a series has several images at one place.
_APART = "have them sent as series of their own, or say in the model's manifest which it looks at (moments)"


def without_copies(
    stack: Stack, images: Sequence[ImageFile], decoders: Decoders, *, remedy: str = _APART
) -> tuple[list[ImageFile], list[str]]:
    """Keep one of several identical slices at one position; raises "repeated-position" where they differ."""
    surplus: set[int] = set()
    groups = stack.repeated()
    for group in groups:
        if len({_content(images[plane.index], decoders) for plane in group}) > 1:
            raise SeriesError(
                "repeated-position",
                f"{len(groups)} of the series' positions have more than one image, e.g. {group[0]} and "
                f"{group[1]}, and they differ. The series mixes {_mixed(group, images)}: {remedy}.",
            )
        surplus.update(plane.index for plane in group[1:])
    kept = [image for index, image in enumerate(images) if index not in surplus]
    return kept, _repeat_note(len(surplus), "a copy of another image at its position")


def _mixed(group: Sequence[Plane], images: Sequence[ImageFile]) -> str:
    found = dimensions.differing([images[plane.index].ds for plane in group])
    if not found:
        return "phases, echoes, b-values or reconstructions"
    return " and ".join(f"several {what}" for what in found)


def _repeat_note(count: int, what: str) -> list[str]:
    if not count:
        return []
    return [f"{count} image{'s' if count > 1 else ''} left out: {what}"]


def _content(image: ImageFile, decoders: Decoders) -> Hashable:
    """What must be equal for two files to be the same slice."""
    position = elements.numbers(image.ds, "ImagePositionPatient", 3)
    place = None if position is None else tuple(position.round(3))
    stored = encoding.of(image.ds)
    return pixels.digest(image, stored, decoders), place, stored.slope, stored.intercept


def _has_no_image(image: ImageFile) -> bool:
    # The name of every image storage SOP class says so (PS3.6 A): a CT that breaks off before Rows is one.
    of_image_class = "Image Storage" in UID(elements.text(image.ds, "SOPClassUID")).name
    return image.pixel_tag is None and elements.number(image.ds, "Rows") is None and not of_image_class


def _has_no_pixels(image: ImageFile) -> bool:
    return image.pixel_tag is None or image.pixel_length == 0


def _has_float_pixels(image: ImageFile) -> bool:
    return image.pixel_tag in PIXEL_TAGS[1:]


def _has_frames_of_no_place(image: ImageFile) -> bool:
    frames = elements.number(image.ds, "NumberOfFrames")
    return frames is not None and frames > 1 and not functional_groups.are_in(image.ds)


def _is_segmentation(image: ImageFile) -> bool:
    return elements.text(image.ds, "SOPClassUID") in _SEGMENTATIONS


def _is_colour(image: ImageFile) -> bool:
    samples = elements.number(image.ds, "SamplesPerPixel")
    return samples not in (None, 1.0) or "MONOCHROME" not in encoding.photometric(image.ds)


def _is_inverted(image: ImageFile) -> bool:
    return encoding.photometric(image.ds) == "MONOCHROME1"


def _has_lookup_table(image: ImageFile) -> bool:
    return "ModalityLUTSequence" in image.ds


#: Reason, test, and what to tell; the first that fits one image names the series' trouble.
_UNUSABLE: tuple[tuple[str, Callable[[ImageFile], bool], str], ...] = (
    (
        "not-an-image",
        _has_no_image,
        "they are no images (reports, plans, waveforms). Route image series only.",
    ),
    (
        "not-an-image",
        _is_segmentation,
        "they are segmentations: labels, not measured values. Route image series only.",
    ),
    (
        "no-pixel-data",
        _has_no_pixels,
        "they hold no pixels; the files may be cut off. Send the series again.",
    ),
    (
        "multi-frame",
        _has_frames_of_no_place,
        "they hold many frames and do not describe them one by one, so that their places are unknown. Have the "
        "modality or PACS send enhanced images with functional groups, or the classic form.",
    ),
    ("undecodable", _has_float_pixels, "they hold floating-point pixels, which cannot be read yet."),
)

#: What slices of a volume are not; single images may be.
_NOT_PLAIN: tuple[tuple[str, Callable[[ImageFile], bool], str], ...] = (
    ("colour", _is_colour, "they are colour images; models here read grey values."),
    (
        "inverted-grey",
        _is_inverted,
        "they are MONOCHROME1: small values are bright, and models expect the opposite. Send MONOCHROME2.",
    ),
    (
        "modality-lut",
        _has_lookup_table,
        "their values are given by a Modality LUT, which cannot be read yet; only slope and intercept can.",
    ),
)


def with_uid(image: ImageFile) -> bool:
    """Give an empty SOP Instance or Class UID the value of the file meta (PS3.10 7.1); whether it did."""
    changed = False
    meta = getattr(image.ds, "file_meta", Dataset())
    for tag, keyword in ((0x00080018, "SOPInstanceUID"), (0x00080016, "SOPClassUID")):
        uid = elements.text(meta, f"MediaStorage{keyword}")
        if uid and not elements.text(image.ds, keyword):
            # Not by attribute: that would first decode what is there.
            image.ds.add_new(tag, VR.UI, UID(uid))
            changed = True
    return changed
