"""Plain text for people: aligned tables, sizes, durations."""

from collections.abc import Sequence

_STEP = 1000
_UNITS = ("B", "kB", "MB", "GB", "TB")
_DIGITS_BEFORE_POINT = 100


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines with aligned columns; a column of numbers is aligned to the right.

    Args:
        columns: Headings.
        rows: Cells, as many in each row as there are headings.
    """
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    numeric = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(_line(cells, widths, numeric) for cells in lines)


def size(count: float) -> str:
    """Return a number of bytes with a decimal unit, three digits at most: ``61.9 kB``."""
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count /= _STEP
        unit += 1
    digits = 0 if unit == 0 or count >= _DIGITS_BEFORE_POINT else 1
    return f"{count:.{digits}f} {_UNITS[unit]}"


def number(value: float | None, digits: int = 4) -> str:
    """Return a metric, or ``-`` when it was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def _is_number(cell: str) -> bool:
    return cell == "-" or cell[:1].isdigit()


def _line(cells: Sequence[str], widths: list[int], numeric: list[bool]) -> str:
    aligned = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    return "  ".join(aligned).rstrip()
