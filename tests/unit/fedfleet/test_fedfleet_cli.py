import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fedfleet import cli as cli_module
from fedfleet import logs
from fedfleet.cli import COMMANDS, SERVICES, Entry, cli
from fedfleet.errors import FleetError

AGENT = "device_agent.app"
HEAVY = (AGENT, "torch", "amqtt", "rich", "central", "matplotlib", "onnx", "sklearn")


@pytest.fixture
def verb(monkeypatch):
    """Puts one command of the test's own into the table."""

    def put(callback):
        command = click.command("tried")(callback)
        monkeypatch.setitem(COMMANDS, "tried", Entry("fedfleet.cli:TRIED", "Tried."))
        monkeypatch.setattr(cli_module, "TRIED", command, raising=False)

    return put


def run(*arguments):
    return CliRunner().invoke(cli, list(arguments))


def loaded_by(*arguments):
    code = (
        "import sys\nfrom fedfleet.cli import cli\n"
        f"try: cli({list(arguments)!r})\nexcept SystemExit: pass\n"
        f"print('loaded', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_help_lists_every_command_with_its_summary():
    output = run("--help").output
    for name, entry in COMMANDS.items():
        assert name in output
        assert entry.summary in output


def test_services_are_commands():
    assert set(COMMANDS) > SERVICES


def test_an_unknown_command_is_a_usage_error():
    assert run("sumbit").exit_code == 2


def test_the_version_is_printed():
    result = run("--version")
    assert (result.exit_code, "0.1.0" in result.output) == (0, True)


def test_a_failure_of_its_own_kind_is_one_line_and_exit_code_1(verb):
    def fail():
        message = "central is away"
        raise FleetError(message)

    verb(fail)
    result = run("tried")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: central is away\n")


def test_a_missing_package_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(COMMANDS, "tried", Entry("no_such_package.cli:run", "Tried."))
    result = run("tried")
    assert result.exit_code == 1
    assert "no_such_package" in result.stderr
    assert "pip install" in result.stderr


def test_a_target_that_is_no_command_is_a_defect(monkeypatch):
    monkeypatch.setitem(COMMANDS, "tried", Entry("fedfleet.cli:SERVICES", "Tried."))
    assert isinstance(run("tried").exception, TypeError)


@pytest.mark.parametrize(("name", "level"), [("device", "info"), ("tasks", "warning")])
def test_services_log_more_than_verbs_by_default(monkeypatch, name, level):
    seen = []
    monkeypatch.setattr(logs, "configure", lambda *given: seen.append(given))
    monkeypatch.setattr(cli_module, "TRIED", click.command()(lambda: None), raising=False)
    monkeypatch.setitem(COMMANDS, name, Entry("fedfleet.cli:TRIED", "Tried."))
    monkeypatch.delenv("FEDFLEET_LOG_LEVEL", raising=False)
    run(name)
    run("--log-level", "debug", "--log-format", "console", name)
    assert seen == [(level, "json"), ("debug", "console")]


def test_the_level_may_come_from_the_environment(monkeypatch, verb):
    seen = []
    monkeypatch.setattr(logs, "configure", lambda *given: seen.append(given))
    monkeypatch.setenv("FEDFLEET_LOG_LEVEL", "error")
    verb(lambda: None)
    run("tried")
    assert seen == [("error", "json")]


def test_help_loads_no_command():
    assert loaded_by("--help") == []


@pytest.mark.parametrize("command", ["tasks", "demo", "device", "gateway", "broker"])
def test_a_command_loads_nothing_heavy_before_it_runs(command):
    assert loaded_by(command, "--help") == []


def test_a_device_starts_without_torch_central_broker_and_rich(tmp_path):
    # An absent file: the agent loads everything that it needs, then ends by itself.
    device = ("device", "--region", "north", "--id", "one", "--data", f"npz={tmp_path}/absent.npz")
    assert loaded_by(*device, "--state-dir", str(tmp_path)) == [AGENT]
