"""What the standard demands of every object is there; what it leaves open is not demanded."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import context, kinds, verify_standard
from engines.manifest import Manifest
from tests.support import results as cases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One object of every kind."""
    source = cases.series(cases.LIES["axial"])
    made = tmp_path_factory.mktemp("standard")
    results.make_results(cases.context(source), cases.findings(source), results.KINDS, made)
    return made


def test_there_is_one_list_of_kinds() -> None:
    assert set(kinds.MADE) == set(context.KINDS)
    named = Manifest.model_fields["results"].annotation
    assert named.__args__[0].__args__ == context.KINDS  # type: ignore[union-attr]


def test_a_kind_is_made_after_those_that_it_refers_to() -> None:
    order = list(kinds.MADE)
    for name, kind in kinds.MADE.items():
        assert all(order.index(other) < order.index(name) for other in kind.refers_to)


@pytest.mark.parametrize("kind", cases.KINDS)
def test_without_any_demanded_attribute_an_object_fails(folder: Path, kind: str) -> None:
    # Given each attribute that the IOD's mandatory modules demand
    ds = dcmread(folder / f"{kind}.dcm")
    verify_standard.check(ds)
    demanded = verify_standard.demanded(str(ds.SOPClassUID))
    types = {keyword: attribute.type for keyword, attribute in demanded.items() if attribute.type != "3"}
    assert {"PatientName", "StudyInstanceUID", "Modality", "SeriesInstanceUID"} <= types.keys()
    for keyword, demand in types.items():
        # When it is taken away, then the object is stopped
        kept = ds[keyword]
        del ds[keyword]
        if keyword != "SOPClassUID":
            with pytest.raises(GateError, match=f"{keyword} is absent"):
                verify_standard.check(ds)
        # And when it is emptied, only where that is not allowed (PS3.5 7.4)
        setattr(ds, keyword, [] if kept.VR == "SQ" else None)
        if demand == "1" and keyword != "SOPClassUID":
            with pytest.raises(GateError, match=f"{keyword} is empty"):
                verify_standard.check(ds)
        elif demand == "2":
            verify_standard.check(ds)
        ds[keyword] = kept


def remove_code(ds: Dataset) -> None:
    del ds.SegmentSequence[-1].SegmentedPropertyTypeCodeSequence[0].CodeMeaning


def remove_number(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber


def remove_value(ds: Dataset) -> None:
    del ds.ContentSequence[-2].ContentSequence[0].ContentSequence[0].TextValue


def remove_relationship(ds: Dataset) -> None:
    del ds.ContentSequence[-1].RelationshipType


@pytest.mark.parametrize(
    ("kind", "damage", "says"),
    [
        ("seg", remove_code, "SegmentedPropertyTypeCodeSequence > CodeMeaning is absent"),
        ("seg", remove_number, "SegmentIdentificationSequence > ReferencedSegmentNumber is absent"),
        ("sr", remove_value, "TextValue of a TEXT item"),
        ("sr", lambda ds: delattr(ds, "ConceptNameCodeSequence"), "ConceptNameCodeSequence of a CONTAINER"),
        ("sr", remove_relationship, "RelationshipType of a CONTAINER item"),
    ],
)
def test_what_is_missing_below_is_named_with_its_path(
    folder: Path, kind: str, damage: object, says: str
) -> None:
    ds = dcmread(folder / f"{kind}.dcm")
    damage(ds)  # type: ignore[operator]
    with pytest.raises(GateError, match=says):
        verify_standard.check(ds)


def test_a_class_without_a_table_fails() -> None:
    ds = Dataset()
    ds.SOPClassUID = "2.25.1"
    with pytest.raises(GateError, match="no IOD is known"):
        verify_standard.check(ds)
