"""The task "classification": how probable each class is, of the whole image."""

from __future__ import annotations

from engines import probability, rows
from engines.answer import Answer, Case
from engines.manifest_outputs import ClassificationOutput


def answer(case: Case) -> Answer:
    """A measurement for each class of the manifest, and a finding for each that has a threshold."""
    output = case.package.manifest.outputs[0]
    assert isinstance(output, ClassificationOutput)
    shares = rows.of_image(
        case,
        output.name,
        least=max(entry.index for entry in output.classes) + 1,
        aggregate=output.aggregate,
        activate=lambda row: probability.activated(row, output.activation, name=output.name),
    )
    measurements = tuple(
        probability.measured(entry, float(probability.calibrated(shares[entry.index], entry.calibration)))
        for entry in output.classes
    )
    stated = map(probability.stated, output.classes, measurements)
    return Answer(
        measurements=measurements, findings=tuple(finding for finding in stated if finding is not None)
    )
