"""How the pixels of an image are stored, and what the stored values mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node import elements
from dicom_node.errors import SeriesError

#: Uncompressed, in the file or after inflating it.
NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)

#: Photometric Interpretations of one value for each pixel.
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")

_BITS_ALLOCATED = (8, 16, 32)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How the pixels of one image are stored (PS3.3 C.7.6.3) and what they mean (C.11.1)."""

    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric_interpretation: str
    slope: float
    intercept: float
    #: Whether the header says how to rescale; without, slope and intercept are 1 and 0.
    rescaled: bool
    #: Stored values (lowest, highest) that are padding; None where the image declares none.
    padding: tuple[int, int] | None
    #: Values of one pixel: 3 for colour.
    samples: int = 1
    #: Whether the samples of colour stand plane after plane (1) or pixel after pixel (0).
    planar_configuration: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether rescaling only shifts the stored values by a whole number."""
        return self.slope == 1 and self.intercept.is_integer()

    @property
    def ends(self) -> tuple[float, float]:
        """What the lowest and the highest value that the stored bits can hold are rescaled to."""
        low = -(1 << (self.bits_stored - 1)) if self.signed else 0
        high = low + (1 << self.bits_stored) - 1
        return low * self.slope + self.intercept, high * self.slope + self.intercept


def of_all(datasets: Sequence[Dataset]) -> list[Encoding]:
    """How each image is stored. Raises SeriesError: "undecodable", "mixed-size", "non-finite"."""
    found = [of(ds) for ds in datasets]
    sizes = Counter((one.rows, one.columns) for one in found)
    if len(sizes) > 1:
        listed = ", ".join(
            f"{count} of {rows} x {columns}" for (rows, columns), count in sizes.most_common(5)
        )
        raise SeriesError(
            "mixed-size", f"Images of unlike size share the series ({listed}): route the single stacks."
        )
    return found


def of(ds: Dataset) -> Encoding:
    """What the header says; raises SeriesError: "undecodable", "non-finite"."""
    allocated = _whole(ds, "BitsAllocated")
    stored = _whole(ds, "BitsStored") or allocated
    high_bit = _whole(ds, "HighBit", default=stored - 1)
    rows, columns = _whole(ds, "Rows"), _whole(ds, "Columns")
    possible = 1 <= stored <= allocated and stored - 1 <= high_bit < allocated
    if allocated not in _BITS_ALLOCATED or not possible or min(rows, columns) < 1:
        raise SeriesError(
            "undecodable",
            f"{elements.name(ds)} declares {rows} x {columns} pixels of {stored} bits in {allocated} "
            f"(high bit {high_bit}); the reader takes 8, 16 or 32 allocated bits that hold the stored ones.",
        )
    slope, intercept, rescaled = _rescale(ds)
    samples = _samples(ds)
    return Encoding(
        rows=rows,
        columns=columns,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=_whole(ds, "PixelRepresentation") == 1,
        photometric_interpretation=photometric(ds),
        slope=slope,
        intercept=intercept,
        rescaled=rescaled,
        padding=_padding(ds, stored=stored),
        samples=samples,
        planar_configuration=_whole(ds, "PlanarConfiguration"),
    )


def _samples(ds: Dataset) -> int:
    """Values of one pixel, as many as its Photometric Interpretation has (PS3.3 C.7.6.3.1.2)."""
    samples = _whole(ds, "SamplesPerPixel") or 1
    kind = photometric(ds)
    if samples != (3 if kind == "RGB" or kind.startswith("YBR_") else 1) or (
        samples == 1 and kind not in _GREY
    ):
        raise SeriesError(
            "undecodable",
            f"{elements.name(ds)} declares {samples} values for each pixel, which do not fit its Photometric "
            "Interpretation; the reader takes MONOCHROME, PALETTE COLOR, RGB and YBR.",
        )
    return samples


def _whole(ds: Dataset, keyword: str, *, default: int = 0) -> int:
    found = elements.number(ds, keyword)
    return default if found is None else int(found)


def _rescale(ds: Dataset) -> tuple[float, float, bool]:
    """Slope and intercept (PS3.3 C.11.1.1.2), and whether the header has them."""
    present = [keyword for keyword in ("RescaleSlope", "RescaleIntercept") if elements.text(ds, keyword)]
    slope, intercept = elements.number(ds, "RescaleSlope"), elements.number(ds, "RescaleIntercept")
    broken = [keyword for keyword in present if elements.number(ds, keyword) is None]
    # float32 ends at 3.4e38; a rescaled 32-bit value must stay within it.
    too_large = max(abs(slope or 0), abs(intercept or 0)) > 1e28
    if broken or slope == 0 or too_large:
        raise SeriesError(
            "non-finite",
            f"{elements.name(ds)} has a RescaleSlope or RescaleIntercept that is not a usable number, so its "
            "values are unknown. Send the original images.",
        )
    return 1.0 if slope is None else slope, intercept or 0.0, bool(present)


def _padding(ds: Dataset, *, stored: int) -> tuple[int, int] | None:
    """Pixel Padding Value and Range Limit (PS3.3 C.7.5.1.1.2), as stored values."""
    value = elements.number(ds, "PixelPaddingValue")
    if value is None:
        return None
    limit = elements.number(ds, "PixelPaddingRangeLimit")
    signed = _whole(ds, "PixelRepresentation") == 1
    ends = sorted(
        _wrapped(int(one), bits=stored, signed=signed) for one in (value, value if limit is None else limit)
    )
    return ends[0], ends[1]


def _wrapped(value: int, *, bits: int, signed: bool) -> int:
    """US and SS are mixed up often: the same bits, read as the pixels are."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def photometric(ds: Dataset) -> str:
    """Photometric Interpretation in upper case; MONOCHROME2 where the header has none."""
    return elements.text(ds, "PhotometricInterpretation").upper() or "MONOCHROME2"
