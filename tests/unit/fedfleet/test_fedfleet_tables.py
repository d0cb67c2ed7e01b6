import pytest

from fedfleet.tables import number, size, table


def test_columns_are_aligned_and_numbers_stand_to_the_right():
    text = table(("name", "n"), [("a", "1"), ("longer", "100")])
    assert text.splitlines() == ["name      n", "------  ---", "a         1", "longer  100"]


def test_a_table_without_rows_is_its_heading():
    assert table(("a", "b"), []).splitlines() == ["a  b", "-  -"]


def test_a_row_of_another_width_is_an_error():
    with pytest.raises(ValueError, match="argument"):
        table(("a", "b"), [("1",)])


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (61_900, "61.9 kB"), (246_824, "247 kB"),
     (1.5e6, "1.5 MB"), (2e15, "2000 TB")],
)  # fmt: skip
def test_sizes_have_a_decimal_unit(count, text):
    assert size(count) == text


def test_a_metric_that_was_not_measured_is_a_dash():
    assert (number(None), number(0.91234), number(2.04, 1)) == ("-", "0.9123", "2.0")
