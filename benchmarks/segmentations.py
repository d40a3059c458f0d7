"""A Segmentation of many classes, written by secondread and by plain highdicom: seconds, size, memory.

    python -m benchmarks.segmentations [--classes 104] [--slices 200] [--rounds 3]

Each writes the same mask of 512 x 512 pixels, of touching convex parts, to the same disk, in a process of its own that
has written a tiny one before. "write" is the object built and on disk with fsync; "gate" is what secondread
adds by reading it back and comparing every voxel. Memory is the process's peak above what it held with the mask.
Then the structure set of the same mask; then the report, the key images, the key objects and the presentation state of
three classes on 600 slices.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from dicom_node.results import ResultContext, files, kinds, rehearsal, verify
from dicom_node.series import SeriesImages
from engines.findings import Code, Findings, ModelIdentity, Segment
from engines.volume import Geometry, Volume

_SIZE = 512
_CODE = Code(value="85756007", scheme="SCT", meaning="Tissue")
_MODEL = ModelIdentity(name="benchmark", version="1", manufacturer="secondread", digest="0" * 64)
#: What is compared: encoding, our kind of it, highdicom's transfer syntax.
_ENCODINGS = (("BINARY", "seg", ExplicitVRLittleEndian), ("LABELMAP", "labelmap", RLELossless))


def mask_of(classes: int, slices: int) -> NDArray[np.uint8]:
    """A ball of parts: each voxel has the label of the nearest of as many random points as there are classes."""
    points = np.random.default_rng(1).uniform(0.2, 0.8, (classes, 3)).astype(np.float32)
    rows, columns = np.meshgrid(*[np.linspace(0, 1, _SIZE, dtype=np.float32)] * 2, indexing="ij")
    mask = np.zeros((slices, _SIZE, _SIZE), np.uint8)
    for index, height in enumerate(np.linspace(0, 1, slices, dtype=np.float32)):
        nearest = np.full((_SIZE, _SIZE), np.inf, np.float32)
        for number, (z, y, x) in enumerate(points, start=1):
            away = (height - z) ** 2 + (rows - y) ** 2 + (columns - x) ** 2
            closer = away < nearest
            nearest[closer], mask[index][closer] = away[closer], number
        mask[index][(height - 0.5) ** 2 + (rows - 0.5) ** 2 + (columns - 0.5) ** 2 > 0.16] = 0
    return mask


def given(mask: NDArray[np.uint8], classes: int) -> tuple[ResultContext, Findings]:
    """The mask as a model's answer about a CT on its grid."""
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 1.5, 0.8, 0.8, 1
    geometry = Geometry(shape=shape, affine=affine, frame_of_reference_uid="2.25.1")
    nothing = np.broadcast_to(np.int16(0), shape)
    context = ResultContext(
        source=SeriesImages(
            volume=Volume(array=nothing, geometry=geometry),
            datasets=tuple(_image(index) for index in range(shape[0])),
        ),
        job_identity="benchmark",
        model=_MODEL,
        engine="none",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        secondread_version="0",
    )
    parts = tuple(
        Segment(number=number, label=f"Part {number}", category=_CODE, type=_CODE)
        for number in range(1, classes + 1)
    )
    return context, Findings(model=_MODEL, geometry=geometry, mask=mask, segments=parts)


def _image(index: int) -> Dataset:
    """The header of one slice."""
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, f"2.25.{index + 10}"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "2.25.2", "2.25.3", "CT"
    image.PatientID = image.PatientName = image.PatientBirthDate = image.PatientSex = ""
    image.StudyID = image.StudyDate = image.StudyTime = image.AccessionNumber = ""
    image.Rows = image.Columns = _SIZE
    image.PixelSpacing, image.SliceThickness, image.FrameOfReferenceUID = [0.8, 0.8], 1.5, "2.25.1"
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.ImagePositionPatient = [0, 0, index * 1.5]
    return image


def ours(context: ResultContext, findings: Findings, kind: str, path: Path) -> dict[str, float]:
    """Build, write, read back and compare, as the pipeline does; seconds of each part."""
    began = time.perf_counter()
    made = kinds.MADE[kind].writer.build(context, findings, {})
    assert made is not None
    files.write(made, path)
    del made
    written = time.perf_counter()
    verify.check(path.read_bytes(), kind, context, findings, ())
    return {"write": written - began, "gate": time.perf_counter() - written}


def theirs(
    context: ResultContext, findings: Findings, encoding: str, syntax: str, path: Path
) -> dict[str, float]:
    """Build with highdicom alone, and write."""
    began = time.perf_counter()
    concept = highdicom.sr.CodedConcept(_CODE.value, _CODE.scheme, _CODE.meaning)
    algorithm = highdicom.AlgorithmIdentificationSequence(name="benchmark", family=concept, version="1")
    described = [
        highdicom.seg.SegmentDescription(part.number, part.label, concept, concept, "AUTOMATIC", algorithm)
        for part in findings.segments
    ]
    made = highdicom.seg.Segmentation(
        source_images=list(context.source.datasets),
        pixel_array=findings.mask,
        segmentation_type=encoding,
        segment_descriptions=described,
        series_instance_uid="2.25.4",
        series_number=1,
        sop_instance_uid="2.25.5",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=syntax,
    )
    files.write(made, path)
    return {"write": time.perf_counter() - began, "gate": 0.0}


def child(who: str, encoding: str, mask_path: Path, classes: int) -> None:
    """One writer, once; prints what it took."""
    _, kind, syntax = next(each for each in _ENCODINGS if each[0] == encoding)
    rehearsal.rehearse()
    context, findings = given(np.load(mask_path), classes)
    findings.mask.max()  # the pages are here before the memory is counted
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = mask_path.with_name(f"{who}-{encoding}.dcm")
    if who == "secondread":
        took = ours(context, findings, kind, path)
    else:
        took = theirs(context, findings, encoding, syntax, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({**took, "bytes": path.stat().st_size, "peak": peak * 1024}))


def measure(who: str, encoding: str, mask_path: Path, classes: int) -> dict[str, Any]:
    """One writer in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.segmentations", "--child", who, encoding, str(mask_path)]
    done = subprocess.run([*command, "--classes", str(classes)], check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def report(who: str, encoding: str, rounds: Sequence[dict[str, Any]]) -> float:
    """Print the medians; return that of writing."""
    middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
    print(
        f"{who:10} {encoding:8}  write {middle['write']:5.2f} s  gate {middle['gate']:5.2f} s  "
        f"{middle['bytes'] / 1e6:6.1f} MB  peak {middle['peak'] / 1e9:.2f} GB above the mask"
    )
    return float(middle["write"])


def main() -> None:
    """Every writer in turn, as many rounds as asked for; then the medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=104)
    parser.add_argument("--slices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=3, metavar=("WHO", "ENCODING", "MASK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        who, encoding, path = arguments.child
        child(who, encoding, Path(path), arguments.classes)
        return
    with tempfile.TemporaryDirectory(prefix="secondread-segmentations-") as folder:
        path = Path(folder) / "mask.npy"
        np.save(path, mask_of(arguments.classes, arguments.slices))
        for encoding, _, _ in _ENCODINGS:
            rounds: dict[str, list[dict[str, Any]]] = {"secondread": [], "highdicom": []}
            for _ in range(arguments.rounds):
                for who, results in rounds.items():
                    results.append(measure(who, encoding, path, arguments.classes))
            own, other = (report(who, encoding, results) for who, results in rounds.items())
            print(f"           {encoding:8}  write / highdicom's: {own / other:.2f} x")
        others(np.load(path), arguments.classes, ("rtstruct",), Path(folder) / "other.dcm")
        documents(Path(folder) / "other.dcm")


def documents(path: Path) -> None:
    """The kinds whose evidence is a long series, or that hold the key slices only."""
    others(mask_of(3, 600), 3, ("sr", "key-images", "key-objects", "presentation-state"), path)


def others(mask: NDArray[np.uint8], classes: int, wanted: Sequence[str], path: Path) -> None:
    """Write these kinds one after the other, and print what each took."""
    rehearsal.rehearse()
    context, findings = given(mask, classes)
    for kind in wanted:
        took = ours(context, findings, kind, path)
        size = path.stat().st_size / 1e6
        print(f"secondread {kind:18}  write {took['write']:.2f} s  gate {took['gate']:.2f} s  {size:.2f} MB")


if __name__ == "__main__":
    main()
