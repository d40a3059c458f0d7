"""Parts of a comparison, each in a process of its own, so that its peak memory is its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def child(
    python: str, module: str, part: str, threads: int, *more: object, **environment: str
) -> dict[str, Any]:
    """What a `part` of a `module`, whose end is `serve`, says, run by this Python on so many threads."""
    # A setting of a machine that slows other numpys down.
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    done = subprocess.run(
        [python, "-m", module, part, str(threads), *map(str, more)],
        env={**plain, "OMP_NUM_THREADS": str(threads), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def serve(parts: Mapping[str, Callable[..., dict[str, Any]]]) -> None:
    """Run the part that the command line names; its last line is what it says, and the peak in bytes."""
    part, threads, *more = sys.argv[1:]
    said = parts[part](int(threads), *more)
    # Linux counts in KiB.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({**said, "peak": peak}))
