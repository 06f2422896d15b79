"""Durations and quantities, as Kubernetes writes them."""

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pippin_contract import units


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90s", 90), ("5m", 300), ("1h30m", 5400), ("100ms", 0.1), ("0s", 0), ("1.5h", 5400)],
)
def test_durations_in_seconds(text, expected):
    assert units.seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "90", "s", "-1s", "1d", "1 s", "1s ", "1s\n", "1h-3m"])
def test_what_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="write 90s"):
        units.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500m", "0.5"), ("2", "2"), ("24Gi", "25769803776"), ("1.5Gi", "1610612736"), ("2G", "2e9")],
)
def test_quantities_as_numbers(text, expected):
    assert units.quantity(text) == Decimal(expected)


@pytest.mark.parametrize("text", ["", "Gi", "-1", "1gi", "1 Gi", "1e3x", "١Gi"])
def test_what_is_no_quantity_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match="write 500m"):
        units.quantity(text)


@given(st.from_regex(re.compile(units.QUANTITY_PATTERN, re.ASCII), fullmatch=True))
def test_the_schema_admits_only_quantities_that_the_parser_reads(text):
    assert units.quantity(text) >= 0


@given(st.from_regex(re.compile(units.DURATION_PATTERN, re.ASCII), fullmatch=True))
def test_the_schema_admits_only_durations_that_the_parser_reads(text):
    assert units.seconds(text) >= 0
