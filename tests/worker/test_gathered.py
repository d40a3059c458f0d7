"""The many objects of one series are read as one line, and nothing that needs a person is hidden in it."""

from __future__ import annotations

from typing import Any

from worker import gathered, views


def made(uid: str, **changes: Any) -> views.ObjectLine:
    values: dict[str, Any] = {
        "kind": "image-series",
        "sop_class_uid": "1.2",
        "sop_instance_uid": uid,
        "series_instance_uid": "1.2.3",
        "path": f"job/image-series/{uid}.dcm",
        "size": 10,
        "sha256": "0" * 64,
        "verified": True,
        "problem": "",
    }
    return views.ObjectLine(**{**values, **changes})


def test_objects_of_one_series_are_together_and_a_refused_one_is_apart() -> None:
    lines = [
        made("1"),
        made("2", verified=False, problem="the values differ"),
        made("3"),
        made("9", kind="sr", series_instance_uid="1.2.4"),
    ]
    found = [[line.sop_instance_uid for line in alike] for alike in gathered.objects(lines)]
    assert found == [["1", "3"], ["2"], ["9"]]
