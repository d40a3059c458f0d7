"""The rehearsal: after it, the first real results wait for nothing."""

from __future__ import annotations

import subprocess
import sys

from dicom_node.results import kinds, rehearsal

#: What a new process reads from its installation while it makes results for the first time.
_OPENED = """
import sys
from dicom_node.results import rehearsal
opened = []
sys.addaudithook(lambda event, detail: opened.append(str(detail[0])) if event == "open" else None)
for _ in range(2):
    opened.clear()
    rehearsal.rehearse()
    print(sum("highdicom" in name or "pydicom" in name for name in opened))
"""


def test_the_rehearsal_goes_the_whole_way_and_leaves_nothing() -> None:
    made = rehearsal.rehearse()
    assert list(dict.fromkeys(item.kind for item in made)) == list(kinds.MADE)
    assert {item.problem for item in made} == {""}
    assert not any(item.path.exists() for item in made)


def test_after_a_rehearsal_nothing_is_left_to_load() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OPENED], capture_output=True, text=True, check=True, timeout=60
    )
    first, second = map(int, done.stdout.split())
    assert first > 0
    assert second == 0
