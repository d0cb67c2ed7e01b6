"""The pages for operators: each block of commands is run by a test or says why it is not."""

import re
from pathlib import Path

import click
import pytest

from fedfleet.cli import COMMANDS, cli
from fedfleet.doctor.subject import SETTINGS
from tests.support.documented_commands import PAGES, ROOT, blocks

BLOCKS = blocks()
TESTS = (ROOT / "tests" / "integration" / "test_operations_commands.py").read_text()
SAYS_WHY = re.compile(r"# not run here: needs .+\n")
#: Verbs that machines with systemd have.
OF_INSTALLED = {"install", "uninstall", "upgrade"}


def typed(words):
    """The part of a line that fedfleet reads; kubectl has a namespace of its name."""
    words = words[words.index("--") + 1 :] if "--" in words else words
    return words[1:] if words[0] == "fedfleet" else []


TYPED = [line for block in BLOCKS for words in block.commands if (line := typed(words))]


def test_there_are_blocks_of_both_kinds():
    assert sum(block.run_by is not None for block in BLOCKS) >= 9
    assert sum(block.info == "sh not-run" for block in BLOCKS) >= 6


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.text.splitlines()[-1])
def test_a_block_is_run_by_a_test_or_says_why_it_is_not(block):
    if block.run_by is None:
        assert block.info == "sh not-run"
        assert SAYS_WHY.match(block.text), "its first line must say: # not run here: needs ..."
    else:
        assert "not run here" not in block.text
        assert f"\ndef {block.run_by}(" in TESTS


def test_every_test_of_the_module_runs_blocks_of_its_own_name():
    tests = re.findall(r"^def (test_\w+)\(", TESTS, re.MULTILINE)
    assert set(tests) == {block.run_by for block in BLOCKS} - {None}
    for name in tests:
        body = TESTS[TESTS.index(f"def {name}(") :].split("\n\n\n", 1)[0]
        assert f'run_blocks("{name}"' in body


@pytest.mark.parametrize("words", TYPED, ids=" ".join)
def test_every_verb_and_option_that_is_typed_exists(words):
    name = words[0]
    if name in OF_INSTALLED - COMMANDS.keys():
        return
    command = cli.get_command(click.Context(cli), name)
    known = {option for one in command.params for option in one.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_the_pages_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_setting_that_the_page_on_operations_names_exists():
    text = PAGES[0].read_text()
    known = {name for settings in SETTINGS.values() for name in settings.model_fields}
    named = set(re.findall(r"`((?:\w+_)+(?:bytes|days|file|s))`", text))
    assert len(named) > 5
    assert named - known - OF_BROKERS == set()


#: Settings of Mosquitto, and a check of the doctor where no such setting exists.
OF_BROKERS = {"max_queued_bytes", "acl_file", "password_file"}


def test_the_tests_that_the_pages_name_are_there():
    for page in PAGES:
        for name in re.findall(r"`(tests/[\w/.]+)`", page.read_text()):
            assert Path(ROOT / name).exists(), name
