"""The pages that a newcomer reads: one page stays one page, and what it names exists."""

import inspect
import re
from pathlib import Path

import pytest

from schemas import assignments, base, envelope, messages, objects, tasks, topics
from tests.simulation.mutate import MUTANTS

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
ARCHITECTURE = (DOCS / "ARCHITECTURE.md").read_text()
GLOSSARY = (DOCS / "glossary.md").read_text()
RELIABILITY = (DOCS / "reliability.md").read_text()
RECORDS = sorted((DOCS / "adr").glob("[0-9]*.md"))
PAGES = [*DOCS.rglob("*.md"), ROOT / "CHANGELOG.md"]


def test_the_architecture_is_one_page():
    assert len(ARCHITECTURE.splitlines()) <= 80
    assert ARCHITECTURE.count("```mermaid") == 2


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`([\w./]+(?:/|\.(?:py|sql|toml)))`", ARCHITECTURE)))
)
def test_every_file_that_the_architecture_names_exists(name):
    assert (ROOT / name).exists()


def test_every_package_under_the_import_rules_is_in_the_diagram():
    rules = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"root_packages = \[(.*?)\]", rules, re.DOTALL)[1]
    packages = re.findall(r'"(\w+)"', listed)
    diagram = ARCHITECTURE[: ARCHITECTURE.index("## One round")]
    assert len(packages) > 5
    assert not [name for name in packages if name not in diagram]


def test_the_import_diagram_is_that_of_the_import_rules():
    arrows = re.findall(r"^  (.+) --> (.+)$", ARCHITECTURE, re.MULTILINE)[:3]
    floors = [
        {re.sub(r"^\w\[(\w+).*", r"\1", part) for part in below.split(" & ")}
        for _, below in arrows
    ]
    rules = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r'"fedfleet",\n((?:    ".*",\n)+)\]', rules)[1]
    expected = [set(line.strip().strip('",').split(" | ")) for line in layers.splitlines()]
    assert floors == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_glossary_is_in_alphabetical_order_without_repetition():
    words = [word.lower() for word in re.findall(r"^- \*\*(.+?)\*\*", GLOSSARY, re.MULTILINE)]
    assert len(words) > 50
    assert words == sorted(set(words), key=lambda word: word.replace("_", " "))


@pytest.mark.parametrize(
    "word",
    [
        "client",
        "cohort",
        "task",
        "round",
        "update",
        "strategy",
        "region",
        "fleet",
        "profile",
        "device",
        "gateway",
        "committed",
        "abandoned",
        "aggregate",
        "staleness",
        "receipt",
        "custody",
        "settlement",
        "boot",
        "chunk",
    ],
)
def test_the_glossary_has_every_word_of_the_house(word):
    assert f"- **{word}**:" in GLOSSARY


def public_classes():
    modules = (assignments, base, envelope, messages, objects, tasks, topics)
    return sorted(
        {
            name
            for module in modules
            for name, value in inspect.getmembers(module, inspect.isclass)
            if value.__module__ == module.__name__ and not name.startswith("_")
        }
    )


@pytest.mark.parametrize("name", [n for n in public_classes() if not n.endswith("Error")])
def test_the_glossary_names_every_class_of_the_contract(name):
    assert re.search(rf"`{name}`", GLOSSARY)


def test_the_index_of_decisions_is_complete():
    index = (DOCS / "adr" / "README.md").read_text()
    listed = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| (.+) \|$", index, re.MULTILINE)
    expected = []
    for path in RECORDS:
        number, title = re.match(r"# (\d{4}): (.+)\n", path.read_text()).groups()
        assert path.name.startswith(f"{number}-")
        expected.append((number, path.name, title))
    assert listed == expected
    assert [int(number) for number, _, _ in listed] == list(range(1, len(listed) + 1))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_decision_has_context_choice_and_consequences(path):
    headings = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
    assert headings == ["Context", "Choice", "Consequences"]
    assert re.search(r"^Status: (accepted|superseded)", path.read_text(), re.MULTILINE)
    consequences = path.read_text().split("## Consequences")[1]
    assert consequences.count("\n- ") >= 3


def test_every_dependency_of_the_package_is_justified():
    rules = (ROOT / "pyproject.toml").read_text()
    project = rules[rules.index("dependencies = [") : rules.index("[project.scripts]")]
    names = set(re.findall(r'"([a-z][a-z-]+)(?:[><=;]| )', project)) - {"fedfleet"}
    record = (DOCS / "adr" / "0007-dependencies.md").read_text()
    assert len(names) > 15
    assert not [name for name in sorted(names) if not re.search(rf"\b{name}\b", record)]


def test_every_test_that_the_page_on_reliability_names_exists():
    named = set(re.findall(r"`(\w+/[\w/]*test_\w+\.py)`", RELIABILITY))
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / "tests" / name).is_file()]


def test_the_page_on_reliability_lists_every_planted_bug_and_the_seeds_that_found_it():
    rows = re.findall(r"^\| (.+?) \| (\d+) \| \w+ \|$", RELIABILITY, re.MULTILINE)
    assert [name for name, _ in rows] == [mutant.name for mutant in MUTANTS]
    assert all(1 <= int(seeds) <= 10_000 for _, seeds in rows)


def test_every_make_target_that_the_page_on_reliability_names_exists():
    targets = set(re.findall(r"`make (\w+)", RELIABILITY))
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert not [name for name in targets if f"\n{name}: " not in makefile]
