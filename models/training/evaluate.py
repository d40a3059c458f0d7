"""Judge the finished package through the engine, on images and phantoms that training never saw."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import labels
import numpy as np
import phantoms
import train
import volumes
from canvas import SPACING
from numpy.typing import NDArray

from engines import loader, package, predict
from engines.findings import Findings
from engines.runner import Runner
from engines.volume import Geometry, Volume


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    #: Dice of left lung, right lung and body; None where the truth has none.
    dice: list[float | None]
    #: Wrongly called lung where the truth has none, mL.
    false_lung_ml: float
    #: Lung voxels given to the wrong side, percent of all true lung.
    swapped_percent: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """The package on one backend."""

    model: package.ModelPackage
    runner: Runner

    def predict(self, volume: Volume) -> Findings:
        """The engine's whole answer."""
        return predict.predict(self.model, self.runner, volume, threads=2)

    def compare(
        self, what: str, volume: Volume, truth: NDArray[np.uint8], part: list[int] | None = None
    ) -> Row:
        """Predict on the whole volume and count in `part` of its slices."""
        guess = self.predict(volume).mask
        if part is not None:
            guess, truth = guess[part], truth[part]
        lung = (truth == labels.LEFT_LUNG) | (truth == labels.RIGHT_LUNG)
        guessed = (guess == labels.LEFT_LUNG) | (guess == labels.RIGHT_LUNG)
        scores = [None if np.isnan(score) else score for score in train.dice(guess, truth)]
        swapped = int((lung & guessed & (guess != truth)).sum())
        return Row(
            what=what,
            dice=scores,
            false_lung_ml=float((guessed & ~lung).sum()) * volume.geometry.voxel_volume_mm3 / 1000,
            swapped_percent=100 * swapped / max(int(lung.sum()), 1),
        )


def held_out(original: bool = False) -> list[int]:
    """Images that training never saw: of the demo CT, or those around them of the original CT."""
    images = [image for block in train.HELD_OUT for image in range(block.start, block.stop)]
    # The demo CT's image k is the original's image 5 + 5 k.
    return [5 + 5 * image + near for image in images for near in range(-2, 3)] if original else images


def phantom_volume(phantom: phantoms.Phantom) -> Volume:
    """A phantom as the engine takes it."""
    affine = np.zeros((4, 4))
    # Axes (slice, row, column) run to the head (z), to posterior (y) and to the left (x).
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *SPACING, 1.0
    shape = phantom.hu.shape
    geometry = Geometry(shape=(shape[0], shape[1], shape[2]), affine=affine)
    return Volume(array=phantom.hu, geometry=geometry, unit="[hnsf'U]")


def phantom_row(judge: Judge, seeds: Iterable[int]) -> list[Row]:
    """The mean over phantoms with lungs, and the worst over those without."""
    chests, others = [], []
    for seed in seeds:
        phantom = phantoms.make(seed)
        row = judge.compare(f"phantom {seed}", phantom_volume(phantom), phantom.labels)
        (others if (phantom.labels % labels.BODY == 0).all() else chests).append(row)
    return [
        _mean(f"{len(chests)} unseen chest phantoms, mean", chests),
        _mean(f"{len(others)} unseen phantoms without lungs (abdomen, head, legs), mean", others),
        max(others, key=lambda row: row.false_lung_ml),
    ]


def _mean(what: str, rows: list[Row]) -> Row:
    """Average of rows, label by label, over those that have the label."""
    dice: list[float | None] = []
    for number in range(len(labels.NAMES) - 1):
        known = [score for row in rows if (score := row.dice[number]) is not None]
        dice.append(float(np.mean(known)) if known else None)
    return Row(
        what=what,
        dice=dice,
        false_lung_ml=float(np.mean([row.false_lung_ml for row in rows])),
        swapped_percent=float(np.mean([row.swapped_percent for row in rows])),
    )


def report(findings: Findings) -> str:
    """The measurements in one line."""
    parts = [
        f"{m.key}[{m.segment_number or 'both'}] {m.value:.1f} {m.unit.value}" for m in findings.measurements
    ]
    return "; ".join(parts)


def main() -> None:
    """Print a Markdown table and write it as JSON beside the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=train.ROOT / "models" / "chest-ct")
    parser.add_argument("--full", type=Path, help="folder with the original 275 images, if you have them")
    parser.add_argument("--engine", choices=["openvino", "onnxruntime"], default="openvino")
    arguments = parser.parse_args()
    model = package.open_package(arguments.package)
    rows: list[Row] = []
    with loader.open_runner(model, engine=arguments.engine, threads=2) as runner:
        judge = Judge(model=model, runner=runner)
        demo = volumes.read(train.ROOT / "demo" / "ct")
        truth = labels.segment(demo.array, demo.geometry.spacing)
        rows.append(judge.compare("held-out images of the demo CT", demo, truth, held_out()))
        rows.append(judge.compare("all 50 images of the demo CT", demo, truth))
        print("demo CT:", report(judge.predict(demo)))
        if arguments.full:
            full = volumes.read(arguments.full)
            truth = labels.segment(full.array, full.geometry.spacing)
            rows.append(
                judge.compare("held-out blocks of the original CT", full, truth, held_out(original=True))
            )
            rows.append(judge.compare("all 275 images of the original CT", full, truth))
            started = time.perf_counter()
            findings = judge.predict(full)
            print(
                f"original CT, {time.perf_counter() - started:.1f} s:",
                dict(findings.seconds),
                report(findings),
            )
        rows += phantom_row(judge, train.JUDGING)
    print(
        "| what | left lung | right lung | body | false lung, mL | wrong side, % of lung |\n|--|--|--|--|--|--|"
    )
    for row in rows:
        scores = " | ".join("-" if score is None else f"{score:.3f}" for score in row.dice)
        print(f"| {row.what} | {scores} | {row.false_lung_ml:.0f} | {row.swapped_percent:.2f} |")
    out = arguments.package / "evaluation.json"
    out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
