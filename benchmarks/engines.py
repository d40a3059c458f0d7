"""Imported models beside the libraries that they come from: seconds, peak memory, the same labels.

    python -m benchmarks.engines nnunet [--data FOLDER_OF_CT] [--classes 5 25] [--threads 2]
    python -m benchmarks.engines monai [--data FOLDER_OF_CT] [--classes 5] [--threads 2]

Without --data the images are a synthetic chest of 275 slices of 512 x 512. Each peer runs in a process of its own, from
the first file to the labels; peaks are those that the kernel counts. The libraries are in the import environment:
`scripts/environment requirements-import.lock .venv-import`. Each comparison is described in its own module.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path

from benchmarks.latency import synthetic

#: One module for each library.
PEERS = ("nnunet", "monai")


def main() -> None:
    """Compare with the library that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    chosen = parser.add_subparsers(dest="peer", required=True)
    modules = {peer: importlib.import_module(f"benchmarks.engines_{peer}") for peer in PEERS}
    for peer, module in modules.items():
        options = chosen.add_parser(peer)
        options.add_argument("--data", type=Path)
        options.add_argument("--threads", type=int, default=2)
        module.add_options(options)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secondread-engines-") as name:
        if arguments.data is None:
            arguments.data = Path(name) / "phantom"
            synthetic(arguments.data)
        modules[arguments.peer].compare(arguments, Path(name))


if __name__ == "__main__":
    main()
