"""How the run on a real engine ends where there can be no engine."""

import json
import sys

import pytest

from tests.deploy.compose import __main__ as run
from tests.deploy.compose import engine
from tests.deploy.compose.report import Failure, Report, until


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WORK", str(tmp_path))
    monkeypatch.delenv("REQUIRE_DEPLOY", raising=False)
    monkeypatch.setattr(sys, "argv", ["tests.deploy.compose"])
    monkeypatch.setattr(run.signal, "signal", lambda *_: None)


def test_who_is_not_root_is_told_so_and_the_run_counts_as_skipped(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    assert run.main() == 77
    assert capsys.readouterr().out.startswith("SKIP: needs root")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_missing_tools_are_named_with_their_packages(monkeypatch, capsys):
    monkeypatch.setattr(engine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(engine.shutil, "which", lambda tool: None if tool == "dockerd" else tool)
    assert run.main() == 77
    told = capsys.readouterr().out
    assert told == "SKIP: tools are missing: apt-get install --no-install-recommends docker.io\n"


def test_a_skip_is_a_failure_where_the_run_is_required(monkeypatch, capsys):
    monkeypatch.setenv("REQUIRE_DEPLOY", "1")
    monkeypatch.setattr(engine.os, "geteuid", lambda: 1000)
    assert run.main() == 1
    assert capsys.readouterr().out.startswith("FAILED (REQUIRE_DEPLOY=1): needs root")


def test_what_does_not_hold_is_told_with_a_summary(monkeypatch, capsys):
    def play(report, *_arguments, **_options):
        report.note("up_s", 3)
        message = "central: no limit Memory"
        raise Failure(message)

    monkeypatch.setattr(run, "play", play)
    assert run.main() == 1
    said, summary = capsys.readouterr().out.splitlines()
    assert "FAILED: central: no limit Memory" in said
    assert json.loads(summary) == {"result": "failed", "seconds": 0, "up_s": 3}


def test_a_wait_that_is_in_vain_names_what_was_waited_for():
    with pytest.raises(Failure, match=r"not within 0.05 s: a broker"):
        until(lambda: None, "a broker", 0.05, 0.01)
    assert until(lambda: 5, "five", 1) == 5


def test_lines_carry_the_seconds(capsys):
    Report().say("built")
    assert capsys.readouterr().out == "[   0s] built\n"
