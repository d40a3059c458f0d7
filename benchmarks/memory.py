"""Peak memory of `secondread run` on one CT.

    python -m benchmarks.memory [--data FOLDER_OF_CT] [--model chest-ct]

Without --data the images are a synthetic chest of 275 slices of 512 x 512. The peak is that of the largest
process of the run, as the kernel counts it. The ratio is against the bar of 2 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.latency import synthetic

BAR_BYTES = 2e9


def main() -> None:
    """Run once and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", default="chest-ct")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secondread-memory-") as name:
        folder = Path(name)
        data = arguments.data or folder / "phantom"
        if arguments.data is None:
            synthetic(data)
        command = [sys.executable, "-m", "worker.cli", "run", arguments.model, str(data)]
        started = time.monotonic()
        subprocess.run([*command, "--out", str(folder / "out")], check=True)
        seconds = time.monotonic() - started
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        f"peak {peak / 1e9:.2f} GB in {seconds:.1f} s; bar {BAR_BYTES / 1e9:.1f} GB; ratio {peak / BAR_BYTES:.2f} x"
    )


if __name__ == "__main__":
    main()
