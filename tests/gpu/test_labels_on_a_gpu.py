"""Label maps that a real GPU made: the host's, from the same plan's logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import gpu, loader, predict
from engines.plans import Plans
from tests.engines import test_device_labels as pretended

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", pretended.EXACT)
def test_labels_are_the_host_s_to_the_bit(kept: Plans, tmp_path: Path, name: str) -> None:
    package = pretended.opened(tmp_path, pretended.EXACT[name])
    gpu.build(package, kept, precision="float32")
    with loader.open_runner(
        package, engine="tensorrt", kept=kept, precision="float32", unverified=True
    ) as runner:
        alone = runner.device_bytes
        on_device = predict.predict(package, runner, pretended.volume(), threads=1).mask
        assert runner.device_bytes > alone, "it was not made on the device"
        runner.leaves_on_device = False
        assert np.array_equal(on_device, predict.predict(package, runner, pretended.volume(), threads=1).mask)
