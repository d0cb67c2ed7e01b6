"""Puts measured tables into a page of the documentation."""

from collections.abc import Sequence
from pathlib import Path


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def put_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- measured: NAME -->`` and ``<!-- end: NAME -->``.

    Raises:
        ValueError: The page has not exactly one such place.
    """
    begin, end = f"<!-- measured: {name} -->", f"<!-- end: {name} -->"
    content = page.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1:
        message = f"{page}: one {begin} and one {end} are needed"
        raise ValueError(message)
    before, _, rest = content.partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
