"""An in-process query SCP that answers what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node.senders import Destination
from tests.support.entity import Entity

#: Answers a C-FIND: statuses with matches.
Find = Callable[[Any], Iterator[tuple[int, Dataset | None]]]


@contextmanager
def running(find: Find, **changes: Any) -> Iterator[Destination]:
    """Start an SCP on a free port."""
    ae = Entity(ae_title="PACS")
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_FIND, find)])
    known = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "timeout_seconds": 2.0}
    try:
        yield Destination(**{**known, "port": server.server_address[1], **changes})
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        server.server_close()


def match(study: str, level: str, **values: Any) -> Dataset:
    """A match at a level."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    ds.StudyInstanceUID = study
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def level(event: Any) -> str:
    """What is asked for."""
    return str(event.identifier.QueryRetrieveLevel)


def counting(series: Mapping[str, int]) -> Find:
    """Answers with so many images of each series, of whatever study is asked about."""

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        study = str(event.identifier.StudyInstanceUID)
        if level(event) == "STUDY":
            yield 0xFF00, match(study, "STUDY", NumberOfStudyRelatedInstances=sum(series.values()))
            return
        for uid, images in series.items():
            yield 0xFF00, match(study, "SERIES", SeriesInstanceUID=uid, NumberOfSeriesRelatedInstances=images)

    return find
