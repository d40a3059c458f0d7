"""The task "regression": numbers about the whole image, in the units of the manifest."""

from __future__ import annotations

from engines import rows
from engines.answer import Answer, Case
from engines.findings import Measurement
from engines.manifest_outputs import RegressionOutput


def answer(case: Case) -> Answer:
    """A measurement for each value of the manifest."""
    output = case.package.manifest.outputs[0]
    assert isinstance(output, RegressionOutput)
    least = max(entry.index for entry in output.values) + 1
    numbers = rows.of_image(case, output.name, least=least, aggregate=output.aggregate)
    return Answer(
        measurements=tuple(
            Measurement(
                key=entry.key,
                name=entry.name.code(),
                value=float(numbers[entry.index]) * entry.scale + entry.offset,
                unit=entry.unit.code(),
            )
            for entry in output.values
        )
    )
