"""Numbers and units as people write them."""

from __future__ import annotations

import math

import pytest

from engines import printing


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (8.4, "8.4"),
        (14.55, "14.6"),
        (99.96, "100"),
        (-812.25, "-812"),
        (2345.678, "2346"),
        (123456789.0, "123456789"),
        (0.01234, "0.0123"),
        (1e-12, "1e-12"),
        (1e300, "1e+300"),
    ],
)
def test_a_number_has_three_digits_and_all_before_the_point(value: float, shown: str) -> None:
    assert printing.number(value) == shown


def test_a_number_is_told_apart_from_what_it_is_not() -> None:
    assert printing.number(10.004, unlike=[10.0]) == "10.004"
    assert printing.number(9.9999, unlike=[10.0, None]) == "9.9999"
    assert printing.number(10.0, unlike=[10.0]) == "10"
    assert printing.number(10.5, unlike=[10.0]) == "10.5"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_said_to_be_none(value: float) -> None:
    assert printing.number(value, unlike=[value, 10.0]) == "could not be computed"
    assert printing.number(8.4, unlike=[value]) == "8.4"


def test_a_change_has_its_sign() -> None:
    assert [printing.change(value) for value in (1.5, 0.0, -2.25)] == ["+1.5", "0", "-2.25"]


def test_units_are_people_s() -> None:
    assert [printing.unit(code) for code in ("[hnsf'U]", "1", "mm3", "mL")] == ["HU", "", "mm³", "mL"]
