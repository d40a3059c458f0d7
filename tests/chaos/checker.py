"""Compares what the senders know with files, rows and the receiving PACS; asks none of our own code."""

from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pydicom

from tests.chaos.ledger import Acknowledged

#: Runs a query and returns its rows.
Query = Callable[[str], list[tuple[Any, ...]]]
#: Segmentation and the two kinds of report that a model may make.
RESULT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "seg",
    "1.2.840.10008.5.1.4.1.1.88.33": "sr",
    "1.2.840.10008.5.1.4.1.1.88.34": "sr",
}
#: What a study whose model answered has in the PACS.
WANTED = ("seg", "sr")


class Held(NamedTuple):
    """An object in the receiving PACS."""

    study: str
    sop_instance_uid: str
    kind: str
    #: SOP Instance UIDs of the images that it speaks of.
    images: frozenset[str]


@dataclass(kw_only=True)
class Report:
    """What was found."""

    #: Kind of violation -> sentences; all empty where the promises were kept.
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    counts: Counter[str] = field(default_factory=Counter)

    def wrong(self, kind: str, sentence: str) -> None:
        """A promise was broken."""
        self.violations[kind].append(sentence)

    @property
    def kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


def check(
    entries: Sequence[Acknowledged], *, storage: Path, query: Query, held: Iterable[pydicom.Dataset]
) -> Report:
    """Everything, after a storm has calmed down."""
    report = Report()
    objects = [_held(ds, {entry.sop_instance_uid for entry in entries}) for ds in held]
    report.counts["images acknowledged"] = len(entries)
    report.counts["objects in the PACS"] = len(objects)
    _check_images(report, entries, storage / "spool")
    check_files(report, storage, query)
    _check_studies(report, entries, query)
    _check_doubles(report, objects)
    _check_answers(report, entries, objects)
    _check_ledger_of_deliveries(report, objects, query)
    return report


def read_ledger(path: Path) -> list[Acknowledged]:
    """What senders wrote down."""
    return [Acknowledged(**json.loads(line)) for line in path.read_text().splitlines()]


def _check_images(report: Report, entries: Sequence[Acknowledged], spool: Path) -> None:
    """Every acknowledged instance is on disk under its final name, byte for byte."""
    for entry in entries:
        folder = spool / entry.study_instance_uid / entry.series_instance_uid
        names = (f"{entry.sop_instance_uid}.dcm", f"{entry.sop_instance_uid}.{entry.sha256[:16]}.dcm")
        if not any(_data_set_digest(folder / name) == entry.sha256 for name in names):
            report.wrong("image lost", f"{entry.sop_instance_uid} was acknowledged and is not on disk")


def _data_set_digest(path: Path) -> str:
    """SHA-256 of what follows the file meta (PS3.10 7.1); "" where there is no such file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return ""
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\x00\x00\x00UL":
        return ""
    (length,) = struct.unpack_from("<L", content, 140)
    return hashlib.sha256(content[144 + length :]).hexdigest()


def check_files(report: Report, storage: Path, query: Query) -> None:
    """No file without a row, no row without a file."""
    _check_spool(report, storage / "spool", query)
    _check_results_folder(report, storage / "results", query)


def _check_spool(report: Report, spool: Path, query: Query) -> None:
    """Files under final names and rows of instances are the same."""
    files = {str(path.relative_to(spool)) for path in spool.glob("[0-9]*/[0-9]*/*.dcm")}
    rows = {path for (path,) in query("SELECT path FROM instances")}
    report.counts["files in the spool"] = len(files)
    for path in sorted(files - rows):
        report.wrong("file without a row", f"spool/{path}")
    for path in sorted(rows - files):
        report.wrong("row without a file", f"spool/{path}")


def _check_results_folder(report: Report, results: Path, query: Query) -> None:
    """Result files and their rows are the same, byte for byte."""
    # Pictures are for the page: a result is whole without them.
    files = {path for path in results.rglob("*.dcm*") if path.is_file()}
    rows: dict[str, str] = dict(query("SELECT path, sha256 FROM result_objects WHERE purged_at IS NULL"))
    known = {results / path: digest for path, digest in rows.items()}
    for path in sorted(files - set(known)):
        report.wrong("file without a row", f"results/{path.relative_to(results)}")
    for path, digest in known.items():
        if not path.exists():
            report.wrong("row without a file", f"results/{path.relative_to(results)}")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            report.wrong("result changed", f"results/{path.relative_to(results)} is not what its row says")


def _check_studies(report: Report, entries: Sequence[Acknowledged], query: Query) -> None:
    """Every study reached an end, and no job of its last revision ended without an answer."""
    states: dict[str, str] = dict(query("SELECT study_instance_uid, state FROM studies"))
    for uid in sorted({entry.study_instance_uid for entry in entries}):
        if states.get(uid) not in ("done", "purged"):
            report.wrong("study stuck", f"study {uid} is {states.get(uid, 'unknown')}")
    ended = query(
        "SELECT s.study_instance_uid, j.id, j.state, j.reason, j.error FROM jobs j JOIN studies s ON s.id = j.study_id "
        "WHERE j.revision = s.revision AND j.state <> 'done'"
    )
    for uid, job, state, reason, error in ended:
        report.wrong("job without an answer", f"study {uid}: job {job} is {state} ({reason}: {error})")
    report.counts["studies"] = len(states)
    report.counts["revisions"] = query("SELECT COALESCE(SUM(revision), 0) FROM studies")[0][0]
    report.counts["jobs"] = query("SELECT COUNT(*) FROM jobs")[0][0]
    report.counts["attempts"] = query("SELECT COALESCE(SUM(attempts), 0) FROM jobs")[0][0]


def _check_doubles(report: Report, objects: Sequence[Held]) -> None:
    """No UID twice, and of the same images no two objects of one kind."""
    for uid, count in Counter(each.sop_instance_uid for each in objects).items():
        if count > 1:
            report.wrong("result doubled", f"{count} objects have the SOP Instance UID {uid}")
    for (study, kind, images), count in Counter((o.study, o.kind, o.images) for o in objects).items():
        if count > 1:
            report.wrong(
                "result doubled", f"study {study}: {count} x {kind} of the same {len(images)} images"
            )


def _check_answers(report: Report, entries: Sequence[Acknowledged], objects: Sequence[Held]) -> None:
    """Of every series' last images there is one object of each kind."""
    series: dict[tuple[str, str], set[str]] = defaultdict(set)
    for entry in entries:
        series[entry.study_instance_uid, entry.series_instance_uid].add(entry.sop_instance_uid)
    there = {(each.study, each.kind, each.images) for each in objects}
    report.counts["results expected"] = len(WANTED) * len(series)
    for (study, _), images in sorted(series.items()):
        for kind in WANTED:
            if (study, kind, frozenset(images)) not in there:
                report.wrong("result missing", f"study {study}: no {kind} of its {len(images)} images")


def _check_ledger_of_deliveries(report: Report, objects: Sequence[Held], query: Query) -> None:
    """What rows say was sent is there, and nothing else is."""
    rows = query(
        "SELECT r.sop_instance_uid, d.state FROM result_objects r LEFT JOIN deliveries d ON d.result_id = r.id"
    )
    states = defaultdict(set)
    for uid, state in rows:
        states[uid].add(state)
    there = {each.sop_instance_uid for each in objects}
    for uid in sorted(there - set(states)):
        report.wrong("result unknown", f"the PACS has {uid}, and no row knows it")
    for uid, found in sorted(states.items()):
        if found & {"sent", "committed"} and uid not in there:
            report.wrong("result missing", f"{uid} is {found} by its row, and the PACS does not have it")
        if "pending" in found or "dead" in found:
            report.wrong("delivery without an end", f"{uid} is {found}")


def _held(ds: pydicom.Dataset, known: set[str]) -> Held:
    """An object of the PACS, and the images that it refers to."""
    return Held(
        study=str(ds.StudyInstanceUID),
        sop_instance_uid=str(ds.SOPInstanceUID),
        kind=RESULT_CLASSES.get(str(ds.SOPClassUID), str(ds.SOPClassUID)),
        images=frozenset(uid for uid in _references(ds) if uid in known),
    )


def _references(ds: pydicom.Dataset) -> Iterator[str]:
    """Every Referenced SOP Instance UID, at any depth."""
    for element in ds:
        if element.keyword == "ReferencedSOPInstanceUID":
            yield str(element.value)
        elif element.VR == "SQ":
            for item in element.value:
                yield from _references(item)
