"""Blocks of commands in the pages for operators: who runs each, and how they are run."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from fedfleet.cli import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "docs" / "operations.md", ROOT / "deploy" / "kubernetes" / "README.md")
_BLOCK = re.compile(r"^```(\S[^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RUN_BY = re.compile(r"sh run-by=(test_\w+)")
#: Within the programs of a page, what is typed in another shell's words.
_SHELL_S = 30


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        page: The file's name.
        info: What follows the opening fence.
        text: Its lines.
    """

    page: str
    info: str
    text: str

    @property
    def run_by(self) -> str | None:
        match = _RUN_BY.fullmatch(self.info)
        return match[1] if match else None

    @property
    def commands(self) -> list[list[str]]:
        """Its lines as words, without comments."""
        lines = [shlex.split(line, comments=True) for line in self.text.splitlines()]
        return [words for words in lines if words]


def blocks() -> list[Block]:
    """All blocks of all pages, in their order."""
    return [
        Block(page.name, info, text)
        for page in PAGES
        for info, text in _BLOCK.findall(page.read_text(encoding="utf-8"))
    ]


def run_blocks(test: str, folder: Path) -> list[str]:
    """Run every block that names a test, in its order; return the output of each line.

    A line of fedfleet runs in this process; any other in a shell, in ``folder``, which must be the
    current one. Every line must succeed.
    """
    mine = [block for block in blocks() if block.run_by == test]
    outputs = [_run(line, folder) for block in mine for line in block.text.splitlines()]
    assert outputs, f"no block is run by {test}"
    return outputs


def _run(line: str, folder: Path) -> str:
    words = shlex.split(line, comments=True)
    if words[0] == "fedfleet":
        result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
        return result.output
    done = subprocess.run(
        ["bash", "-euc", line],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_SHELL_S,
        check=False,
    )
    assert done.returncode == 0, f"{line}: {done.stderr}"
    return done.stdout
