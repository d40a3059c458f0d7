"""A code stream that kills its decoder costs one series, not the process that asked."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dicom_node import decoding, encoding, headers, pixels
from dicom_node.decoding import Decoders
from dicom_node.errors import SeriesError
from dicom_node.series import read_series
from tests.support.listening import until


def values(path: Path, decoders: Decoders) -> np.ndarray:
    image = headers.read(path)
    return pixels.stored_values(image, encoding.of(image.ds), decoders)


def damaged(source: Path, target: Path, *, at: int, byte: int) -> Path:
    """A copy with one byte of the pixel element changed."""
    offset = headers.read(source).pixel_offset
    content = bytearray(source.read_bytes())
    content[offset + at] = byte
    target.write_bytes(content)
    return target


#: One byte each that makes the decoder abort, panic or ask for gigabytes: 65280 lines instead of 256
#: in a frame header, a component beyond the image, an RLE segment that begins beyond its end.
DEADLY = [("jpeg-lossless", 22, 0xFF), ("jpeg-lossless", 31, 0), ("rle", 24, 0xFF)]


@pytest.mark.parametrize(("syntax", "at", "byte"), DEADLY)
def test_a_decoder_that_dies_takes_nobody_along(
    syntax: str, at: int, byte: int, data: Path, tmp_path: Path
) -> None:
    good, other = sorted((data / "mr_compressed" / syntax).glob("*.dcm"))
    bad = damaged(good, tmp_path / "bad.dcm", at=at, byte=byte)
    with Decoders() as decoders:
        before = values(other, decoders)
        with pytest.raises(SeriesError) as caught:
            values(bad, decoders)
        assert caught.value.reason == "undecodable"
        assert np.array_equal(values(other, decoders), before)


def test_the_series_of_a_deadly_file_is_refused(data: Path, tmp_path: Path) -> None:
    good, other = sorted((data / "mr_compressed" / "jpeg-lossless").glob("*.dcm"))
    bad = damaged(good, tmp_path / "bad.dcm", at=22, byte=0xFF)
    with pytest.raises(SeriesError) as caught:
        read_series([bad, shutil.copy(other, tmp_path / "other.dcm")])
    assert caught.value.reason == "undecodable"


def test_a_decoder_that_hangs_is_ended(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_TIME_LIMIT", 0.3)
    path = next((data / "mr_compressed" / "jpeg-ls").glob("*.dcm"))
    process = decoding._start()
    os.kill(process.pid, signal.SIGSTOP)
    with Decoders() as decoders:
        decoders._idle.append(process)
        with pytest.raises(SeriesError) as caught:
            values(path, decoders)
    assert caught.value.reason == "undecodable"
    assert process.poll() is not None


def test_no_process_stays_behind(data: Path) -> None:
    path = next((data / "mr_compressed" / "jpeg-ls").glob("*.dcm"))
    with Decoders() as decoders:
        values(path, decoders)
        values(path, decoders)
        (process,) = decoders._idle
        assert process.poll() is None
    assert process.poll() is not None
    assert process.stdin is not None and process.stdin.closed


_ASK_AND_WAIT = """
import sys, time
from pathlib import Path
from dicom_node import decoding, encoding, headers, pixels
with decoding.Decoders() as decoders:
    image = headers.read(Path(sys.argv[1]))
    pixels.stored_values(image, encoding.of(image.ds), decoders)
    print(decoders._idle[0].pid, flush=True)
    time.sleep(600)
"""


def test_no_process_outlives_who_asked(data: Path) -> None:
    path = next((data / "mr_compressed" / "jpeg-ls").glob("*.dcm"))
    asker = subprocess.Popen([sys.executable, "-c", _ASK_AND_WAIT, path], stdout=subprocess.PIPE)
    assert asker.stdout is not None
    decoder = int(asker.stdout.readline())
    asker.kill()
    asker.wait()
    asker.stdout.close()
    until(lambda: not Path(f"/proc/{decoder}").exists(), "the decoder to end")


_HANG = """
import sys
from dicom_node import decoding
decoding._TIME_LIMIT = 1
decoding._decoded = lambda *_: exec("while True: pass")
decoding._serve(sys.stdin.buffer, sys.stdout.buffer)
"""


def test_a_decoder_that_hangs_ends_also_where_nobody_is_left_to_end_it() -> None:
    request = b'{"size": 1, "syntax": "1.2.840.10008.1.2.4.80", "options": {}}\n?'
    decoder = subprocess.Popen([sys.executable, "-c", _HANG], stdin=subprocess.PIPE)
    decoder.communicate(request, timeout=60)
    assert decoder.returncode == -signal.SIGALRM


def test_uncompressed_series_start_no_process(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_start", lambda: pytest.fail("a process was started"))
    with pytest.raises(SeriesError, match="missing"):
        read_series(sorted((data / "mr_missing_slice").glob("*.dcm")))
