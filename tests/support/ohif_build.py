"""OHIF's published build, fetched once into a cache outside the checkout: `python -m tests.support.ohif_build`.

Only the standard library: it runs before there is a virtual environment.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import io
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
from pathlib import Path

VERSION = "3.13.2"
#: As npm states it (dist.integrity of @ohif/app).
SHA512 = "WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
ADDRESS = f"https://registry.npmjs.org/@ohif/app/-/app-{VERSION}.tgz"

#: Source maps, and programs that no page of ours asks for: half of what is unpacked.
_LEFT_OUT = (".map", ".LICENSE.txt")
_FOLDERS_LEFT_OUT = ("package/dist/ort/", "package/dist/dicom-microscopy-viewer/")


def folder() -> Path:
    """Where the build is, or would be, unpacked; its index.html is written last."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "secondread" / f"ohif-{VERSION}"


def present() -> bool:
    """Whether it has been fetched."""
    return folder().is_dir()


def fetch() -> None:
    """Download, check and unpack it.

    Raises OSError or HTTPException where it cannot be had, ValueError where it is not what was pinned.
    """
    with urllib.request.urlopen(ADDRESS, timeout=60) as answer:
        packed = answer.read()
    if base64.b64encode(hashlib.sha512(packed).digest()).decode() != SHA512:
        raise ValueError(f"{ADDRESS} is not what it was: its SHA-512 differs")
    place = folder()
    place.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=place.name, dir=place.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            # Python 3.11 before its fourth release has no filters; the bytes are known by their digest.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(half, members=filter(_wanted, archive))
        (half / "package" / "dist").rename(place)
    finally:
        shutil.rmtree(half)


def _wanted(member: tarfile.TarInfo) -> bool:
    """Whether a member of the package is served."""
    name = member.name
    return (
        name.startswith("package/dist/")
        and not name.endswith(_LEFT_OUT)
        and not name.startswith(_FOLDERS_LEFT_OUT)
    )


def main() -> int:
    """Fetch it where it is not there; what is left out where it cannot be had is told."""
    if not present():
        sys.stderr.write(f"fetching OHIF {VERSION}, 50 MB, into {folder()}, only this once\n")
        try:
            fetch()
        except (OSError, http.client.HTTPException) as exc:
            sys.stderr.write(f"OHIF could not be fetched, so its tests skip: {exc}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
