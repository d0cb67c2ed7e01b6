"""The report: a table for a person, one object for a program."""

import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedfleet.doctor.finding import Finding, worst

#: Where nobody looks at a terminal, lines are not broken earlier than that.
_FILE_WIDTH = 160
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def as_json(program: str, findings: Sequence[Finding]) -> str:
    """Return the report as one JSON object."""
    told = [
        {"check": one.check, "status": one.status, "seen": one.seen, "advice": one.advice}
        for one in findings
    ]
    return json.dumps({"program": program, "status": worst(findings), "findings": told})


def show(program: str, findings: Sequence[Finding]) -> None:
    """Print the report as a table, and how many lines are not well."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_FILE_WIDTH)
    table = Table("check", "status", "seen", "what to do", title=f"fedfleet {program}")
    for one in findings:
        status = Text(one.status, _STYLES[one.status])
        table.add_row(Text(one.check), status, Text(one.seen), Text(one.advice))
    console.print(table)
    counts = {status: sum(one.status == status for one in findings) for status in _STYLES}
    console.print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['failed']} failed")
