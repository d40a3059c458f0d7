"""Decompress pixels in processes of their own: a broken code stream may abort a decoder or eat all memory.

It is also the only way to use more than one core: no decoder at hand releases the GIL
(docs/decisions/0031). `python -m dicom_node.decoding` is such a process; it reads requests from
standard input (a line of JSON, then the encapsulated frame) and writes answers in the same form.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node import elements
from dicom_node.encoding import NATIVE, Encoding
from dicom_node.errors import SeriesError

#: The fastest installed decoder where there is a choice (docs/decisions/0031).
_PLUGINS: dict[UID, str] = {
    JPEGBaseline8Bit: "pillow",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    RLELossless: "pylibjpeg",
}

#: Address space of one decoding process (bytes): a 512 x 512 slice needs a tenth.
_MEMORY = 2 << 30
#: One slice takes milliseconds; a decoder that is still busy then hangs (seconds).
_TIME_LIMIT = 60


class Decoders:
    """Decoding processes, as many as are used at once; a context manager, and thread-safe."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._idle:
            _stop(process)

    def decode(self, data: bytes | bytearray, syntax: UID, encoding: Encoding) -> NDArray[Any]:
        """Stored values (rows, columns) of one encapsulated frame; of colour, native too, (rows, columns, 3) RGB.

        Raises SeriesError: "truncated" where the fragments break off, "undecodable".
        """
        if syntax not in NATIVE:
            _refuse_broken_fragments(data)
        request = {"syntax": str(syntax), "options": _options(encoding), "size": len(data)}
        # list.pop and list.append are atomic: two threads never get the same process.
        process = self._idle.pop() if self._idle else _start()
        watchdog = threading.Timer(_TIME_LIMIT, process.kill)
        watchdog.start()
        try:
            answer = _ask(process, request, data)
        except (OSError, ValueError) as error:
            _stop(process)
            raise _undecodable(syntax, "the decoder crashed, hung, or took too much memory") from error
        finally:
            watchdog.cancel()
        self._idle.append(process)
        if isinstance(answer, str):
            raise _undecodable(syntax, answer)
        shape = (encoding.rows, encoding.columns)
        return answer.reshape(shape if encoding.samples == 1 else (*shape, encoding.samples))


def _start() -> subprocess.Popen[bytes]:
    # -P: a folder that happens to be the working directory must not provide modules.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dicom_node.decoding"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(OSError):
        process.communicate()


def _ask(
    process: subprocess.Popen[bytes], request: dict[str, Any], data: bytes | bytearray
) -> NDArray[Any] | str:
    """The decoded values, or the name of what went wrong; OSError or ValueError where the process died."""
    assert process.stdin is not None and process.stdout is not None
    _send(process.stdin, request, data)
    head = json.loads(process.stdout.readline())
    if "error" in head:
        return str(head["error"])
    values = process.stdout.read(head["size"])
    return np.frombuffer(bytearray(values), np.dtype(head["dtype"]))


def _send(target: IO[bytes], head: dict[str, Any], data: bytes | bytearray | memoryview) -> None:
    target.write(json.dumps(head).encode() + b"\n")
    target.write(data)
    target.flush()


def _undecodable(syntax: UID, why: str) -> SeriesError:
    name = syntax.name if syntax.name != syntax else "unknown"
    return SeriesError(
        "undecodable",
        f"The pixels cannot be decompressed (transfer syntax {name}, {syntax}; {why}). Have the PACS send them "
        "uncompressed (Explicit VR Little Endian) or in a lossless JPEG syntax.",
    )


def _options(encoding: Encoding) -> dict[str, Any]:
    return {
        "rows": encoding.rows,
        "columns": encoding.columns,
        "number_of_frames": 1,
        "samples_per_pixel": encoding.samples,
        **({"planar_configuration": encoding.planar_configuration} if encoding.samples > 1 else {}),
        "bits_allocated": encoding.bits_allocated,
        "bits_stored": encoding.bits_stored,
        "pixel_representation": int(encoding.signed),
        "photometric_interpretation": encoding.photometric_interpretation,
        "pixel_keyword": "PixelData",
    }


def _refuse_broken_fragments(data: bytes | bytearray) -> None:
    """Walk items to the delimiter (PS3.5 A.4): a decoder may draw half an image without a word."""
    at = 0
    while at + 8 <= len(data):
        group, element, length = struct.unpack_from("<HHL", data, at)
        if (group, element) == (0xFFFE, 0xE0DD):
            return
        if (group, element) != (0xFFFE, 0xE000):
            raise SeriesError("undecodable", "The compressed pixels are not a sequence of fragments.")
        at += 8 + length
    raise SeriesError("truncated", "The compressed pixels of an image are cut off. Send the series again.")


def _serve(source: BinaryIO, target: IO[bytes]) -> None:
    """Answer requests until the other side is gone."""
    while line := source.readline():
        request = json.loads(line)
        data = source.read(request["size"])
        # Who asked may have died: then nobody else ends a decoder that hangs (alarm(2) needs no interpreter).
        signal.alarm(2 * _TIME_LIMIT)
        try:
            values = _decoded(data, UID(request["syntax"]), request["options"])
        except (*elements.BROKEN, RuntimeError, OSError) as error:
            _send(target, {"error": type(error).__name__}, b"")
        else:
            _send(target, {"dtype": values.dtype.str, "size": values.nbytes}, values.tobytes())


def _decoded(data: bytes, syntax: UID, options: dict[str, Any]) -> NDArray[Any]:
    # Not raw: luminance and colour differences become red, green and blue.
    raw = options["samples_per_pixel"] == 1
    values, _ = get_decoder(syntax).as_array(
        data, index=0, raw=raw, decoding_plugin=_PLUGINS.get(syntax, ""), **options
    )
    return values


def main() -> None:
    """Serve on standard input and output, within limits."""
    target = os.fdopen(os.dup(1), "wb")
    # Decoders print their troubles; what they print must not end up between the answers.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _serve(sys.stdin.buffer, target)


if __name__ == "__main__":
    main()
