"""One image that stands alone -> a volume of one slice: X-rays, ultrasound, photographs, one slice of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

from dicom_node import display, elements, geometry, pixel_size, pixels
from dicom_node.decoding import Decoders
from dicom_node.encoding import Encoding
from dicom_node.errors import SeriesError
from dicom_node.headers import ImageFile
from engines.volume import Geometry, Scale, Volume

#: Luminance of red, green and blue (ITU-R BT.601): the Y of YBR_FULL (PS3.3 C.7.6.3.1.2).
_LUMINANCE = np.array([0.299, 0.587, 0.114])

#: Grey values of colour images run from 0 to this.
_WHITE = 255.0

#: Without a window, so many bits are shown as they are; of more, few are used.
_SHOWN_BITS = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """Grey values (rows, columns), bright where the image is bright, with how they are shown."""

    array: NDArray[Any]
    window: tuple[float, float] | None
    notes: tuple[str, ...] = ()
    #: Whether they are the image's own, and in its unit.
    own: bool = True


def only(images: Sequence[ImageFile]) -> tuple[ImageFile, list[str]]:
    """The one image that a model of single images is to look at, and what was set aside for it.

    Raises SeriesError "several-images" where nothing says which of several it is.
    """
    shown = [
        image for image in images if elements.text(image.ds, "PresentationIntentType") != "FOR PROCESSING"
    ]
    if len(shown) == 1:
        aside = len(images) - 1
        return shown[0], [f"{aside} FOR PROCESSING images set aside"] if aside else []
    if len(images) == 1:
        return images[0], []
    raise SeriesError(
        "several-images",
        f"The series holds {len(images)} images, and the model looks at one: nobody says which. Have the modality "
        "or the PACS send each view as a series of its own.",
    )


def read(
    image: ImageFile,
    encoding: Encoding,
    *,
    unit: str,
    fill_padding: bool,
    displayed: bool = False,
    decoders: Decoders,
) -> tuple[Volume, list[str]]:
    """The image as a volume (1, rows, columns), and what was odd about it.

    Colour becomes luminance, MONOCHROME1 is turned over, a Modality LUT is applied and a VOI LUT is not, unless it is
    `displayed`: then the values are what a viewer shows, from 0 (black) to 1 (white). Raises SeriesError:
    "truncated", "undecodable", "no-geometry", "implausible-spacing".
    """
    values = _values(image, encoding, fill_padding=fill_padding, displayed=displayed, decoders=decoders)
    place, notes = _geometry(image.ds, rows=encoding.rows, columns=encoding.columns)
    volume = Volume(
        array=values.array[None], geometry=place, unit=unit if values.own else "1", window=values.window
    )
    return volume, [*values.notes, *_intensity(image.ds), *notes]


def _values(
    image: ImageFile, encoding: Encoding, *, fill_padding: bool, displayed: bool, decoders: Decoders
) -> Values:
    if encoding.samples > 1 or encoding.photometric_interpretation == "PALETTE COLOR":
        grey = _grey(image, encoding, decoders)
        return replace(grey, array=grey.array / np.float32(_WHITE), window=(0.0, 1.0)) if displayed else grey
    found, ends = _rescaled(image, encoding, fill_padding=fill_padding, decoders=decoders)
    if found.window is None and encoding.bits_stored <= _SHOWN_BITS and "VOILUTSequence" not in image.ds:
        found = replace(found, window=(min(ends), max(ends)))
    if displayed:
        return _displayed(image.ds, encoding, found)
    return _turned_over(found, sum(ends)) if encoding.photometric_interpretation == "MONOCHROME1" else found


def _grey(image: ImageFile, encoding: Encoding, decoders: Decoders) -> Values:
    """What the colours of an image are without colour."""
    stored = pixels.stored_values(image, encoding, decoders)
    if encoding.samples == 1:
        return _from_palette(image.ds, stored)
    return _luminance(stored, 2.0**encoding.bits_stored - 1)


def _rescaled(
    image: ImageFile, encoding: Encoding, *, fill_padding: bool, decoders: Decoders
) -> tuple[Values, tuple[float, float]]:
    """What a grey image's Modality LUT, or slope and intercept, make of its values, and of the lowest and highest."""
    if "ModalityLUTSequence" in image.ds:
        return _from_lookup_table(image.ds, pixels.stored_values(image, encoding, decoders))
    array, padded = pixels.read_volume(
        [image], [encoding], fill_padding=fill_padding, threads=1, decoders=decoders
    )
    notes = (f"{padded} padding pixels set to {pixels.PADDING_HU} HU",) if padded else ()
    return Values(array=array[0], window=display.window(image.ds), notes=notes), encoding.ends


def _displayed(ds: Dataset, encoding: Encoding, values: Values) -> Values:
    """What a viewer shows: the VOI, then black for white where the image is inverted (PS3.4 N.2)."""
    found = display.shown(ds, values.array, otherwise=values.window or _range(values.array, encoding))
    array = np.float32(1) - found.array if display.inverted(ds) else found.array
    note = "the values are those that a viewer shows, 0 black to 1 white"
    return Values(array=array, window=(0.0, 1.0), notes=(*values.notes, *found.notes, note), own=False)


def _range(array: NDArray[Any], encoding: Encoding) -> tuple[float, float]:
    """The lowest and the highest value that is no padding; of padding alone, of that."""
    measured = array
    if encoding.padding is not None:
        low, high = sorted(end * encoding.slope + encoding.intercept for end in encoding.padding)
        kept = array[(array < low) | (array > high)]
        measured = kept if kept.size else array
    return float(measured.min()), float(measured.max())


def _luminance(colours: NDArray[Any], white: float) -> Values:
    """Red, green and blue (rows, columns, 3), of which `white` is the most, as grey."""
    grey = (colours @ (_LUMINANCE * (_WHITE / white))).astype(np.float32)
    return Values(
        array=grey, window=(0.0, _WHITE), notes=("colour was turned into grey (luminance)",), own=False
    )


def _from_palette(ds: Dataset, stored: NDArray[Any]) -> Values:
    """The colours that the stored values stand for (PS3.3 C.7.6.3.1.5, C.7.6.3.1.6)."""
    try:
        colours = apply_color_lut(stored, ds)
        # More bits than eight are written in two bytes, and used from the top (PS3.3 C.7.6.3.1.5).
        white = float(2 ** int(ds.RedPaletteColorLookupTableDescriptor[2]) - 1)
    except elements.BROKEN as error:
        raise _broken_table(ds, "palette") from error
    return _luminance(colours[..., :3], white)


def _from_lookup_table(ds: Dataset, stored: NDArray[Any]) -> tuple[Values, tuple[float, float]]:
    """What the Modality LUT makes of the stored values (PS3.3 C.11.1), and its lowest and highest value."""
    try:
        array = apply_modality_lut(stored, ds)
        table = ds.ModalityLUTSequence[0]
        ends = (0.0, float(2 ** int(table.LUTDescriptor[2]) - 1))
        kind = elements.text(table, "ModalityLUTType") or "US"
    except elements.BROKEN as error:
        raise _broken_table(ds, "Modality LUT") from error
    notes = (f"values are those of the Modality LUT (type {kind})",)
    own = kind.upper() == "HU"
    return Values(array=array.astype(np.float32), window=display.window(ds), notes=notes, own=own), ends


def _broken_table(ds: Dataset, which: str) -> SeriesError:
    return SeriesError(
        "undecodable",
        f"{elements.name(ds)} has a {which} that cannot be read, so its values are unknown. Send the original image.",
    )


def _turned_over(values: Values, total: float) -> Values:
    """MONOCHROME1 as MONOCHROME2: each value's distance from one end is that from the other."""
    array = np.float32(total) - values.array.astype(np.float32)
    window = None if values.window is None else (total - values.window[1], total - values.window[0])
    note = f"MONOCHROME1: the values are turned over ({total:g} less the value), so that bright is large"
    return Values(array=array, window=window, notes=(*values.notes, note), own=False)


def _intensity(ds: Dataset) -> list[str]:
    """How X-ray intensity became a value (PS3.3 C.8.11.3.1.2): models may expect either."""
    relationship, sign = (
        elements.text(ds, "PixelIntensityRelationship" + part).upper() for part in ("", "Sign")
    )
    return [f"Pixel Intensity Relationship is {relationship}{f', sign {sign}' * bool(sign)}"] * bool(
        relationship
    )


def _geometry(ds: Dataset, *, rows: int, columns: int) -> tuple[Geometry, list[str]]:
    """Its place in the patient where it has one, else its own plane in millimetres or pixels."""
    frame = elements.uid(ds, "FrameOfReferenceUID")
    counts = (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2))
    if frame and all(elements.numbers(ds, keyword, count) is not None for keyword, count in counts):
        return _in_patient(ds, (1, rows, columns), frame)
    spacing, notes = pixel_size.of(ds)
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = 1.0
    if spacing is not None:
        affine[1, 1], affine[0, 2] = spacing
    scale = Scale.NONE if spacing is None else Scale.PLANE
    return Geometry(shape=(1, rows, columns), affine=affine, in_patient=False, scale=scale), notes


def _in_patient(ds: Dataset, shape: tuple[int, int, int], frame: str) -> tuple[Geometry, list[str]]:
    """One slice of a scan: its thickness stands for the distance that it does not have."""
    stack = geometry.stack([ds])
    thickness = elements.number(ds, "SliceThickness") or 0.0
    affine = np.eye(4)
    affine[:3, 0] = stack.normal * (thickness if thickness > 0 else 1.0)
    affine[:3, 1] = stack.along_column * stack.pixel_spacing[0]
    affine[:3, 2] = stack.along_row * stack.pixel_spacing[1]
    affine[:3, 3] = stack.planes[0].position
    scale = Scale.VOLUME if thickness > 0 else Scale.PLANE
    notes = [] if thickness > 0 else ["the slice does not say how thick it is: no volume can be measured"]
    return Geometry(shape=shape, affine=affine, frame_of_reference_uid=frame, scale=scale), notes
