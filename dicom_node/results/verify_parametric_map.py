"""The gate for a Parametric Map: every number, in patient coordinates, is the map's, and is what it is called."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import codes, parametric_map, verify_segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a Parametric Map, as read from disk, with the findings. GateError says what differs."""
    shown = findings.maps[0]
    _, slices = verify_segments.check_place(ds, context, findings)
    _check_meaning(ds, findings)
    if sorted(slices.tolist()) != parametric_map.spanned(shown) or int(ds.NumberOfFrames) != len(slices):
        raise GateError("its frames are not the slices that the map spans, each once")
    shape = (len(slices), int(ds.Rows), int(ds.Columns))
    data = np.frombuffer(ds.FloatPixelData, dtype="<f4")
    if data.size != np.prod(shape) or (ds.BitsAllocated, ds.SamplesPerPixel) != (32, 1):
        raise GateError("the pixel data is not a 32-bit number for each pixel of its frames")
    for frame, index in zip(data.reshape(shape), slices.tolist(), strict=True):
        if not np.array_equal(frame, shown.array[index]):
            raise GateError(f"the numbers differ from the map on slice {index + 1}")


def _check_meaning(ds: Dataset, findings: Findings) -> None:
    """The numbers must stand for themselves, in the map's unit and under its name."""
    shown = findings.maps[0]
    [mapping] = ds.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    if (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) != (1, 0):
        raise GateError("the numbers are rescaled")
    mapped = (
        mapping.DoubleFloatRealWorldValueFirstValueMapped,
        mapping.DoubleFloatRealWorldValueLastValueMapped,
    )
    if mapped != parametric_map.values(shown):
        raise GateError("the numbers that are mapped are not the map's range")
    unit = codes.read(mapping.MeasurementUnitsCodeSequence[0])
    name = codes.read(mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0])
    if (unit, name) != (shown.unit, shown.name):
        raise GateError("the numbers have another name or unit than the map's")
    if mapping.LUTExplanation != parametric_map.explained(findings, shown):
        raise GateError("it is not said what the numbers are of")
