"""The command ``fedfleet``: finds a sub-command and loads no other.

Exit codes everywhere: 0 done, 1 refused or failed, 2 a command line that makes no sense.
Results go to stdout, logs and progress to stderr.
"""

import sys
from dataclasses import dataclass
from importlib import import_module

import click

from fedfleet.errors import FleetError
from fedfleet.log_choices import FORMATS, LEVELS


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a sub-command lives; its module is imported only when it is called.

    Attributes:
        target: ``module:attribute``.
        summary: One line of ``fedfleet --help``.
    """

    target: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "audit": Entry("fedfleet.commands.audit:audit", "Check that no update is lost or double."),
    "backup": Entry("fedfleet.commands.backup:backup", "Copy the state of central or a gateway."),
    "broker": Entry("fedfleet.commands.broker:broker", "Run the embedded MQTT broker."),
    "cancel": Entry("fedfleet.commands.control:cancel", "End a task without a result."),
    "central": Entry("central.cli:central", "Run central."),
    "chaos": Entry(
        "fedfleet.commands.chaos:chaos", "Kill a running fleet at random and check it."
    ),
    "demo": Entry("fedfleet.commands.demo:demo", "Train with a whole fleet on this machine."),
    "device": Entry("device_agent.cli:device", "Run one device agent."),
    "devices": Entry("fedfleet.commands.devices:devices", "List gateways and devices."),
    "doctor": Entry("fedfleet.commands.doctor:doctor", "Find what is wrong on this machine."),
    "export": Entry("fedfleet.commands.export:export", "Write a trained model to a file."),
    "failpoints": Entry(
        "fedfleet.commands.failpoints:failpoints", "List where a test may kill a program."
    ),
    "gateway": Entry("regional_gateway.cli:gateway", "Run one regional gateway."),
    "health": Entry("fedfleet.commands.health:health", "Say whether a program is ready."),
    "install": Entry(
        "fedfleet.commands.install:install", "Set a machine up to run a program by systemd."
    ),
    "model": Entry("fedfleet.commands.model:model", "Check, time or write out a model."),
    "parked": Entry("fedfleet.commands.parked:parked", "Show messages that were set aside."),
    "pause": Entry("fedfleet.commands.control:pause", "Start no further round of a task."),
    "profiles": Entry(
        "fedfleet.commands.profiles:profiles", "List, show, detect or check firmware profiles."
    ),
    "restore": Entry("fedfleet.commands.restore:restore", "Put a backup back."),
    "resume": Entry("fedfleet.commands.control:resume", "Go on with a paused task."),
    "status": Entry("fedfleet.commands.tasks:status", "Show one task."),
    "submit": Entry("fedfleet.commands.submit:submit", "Hand a task to central."),
    "tasks": Entry("fedfleet.commands.tasks:tasks", "List the tasks that central knows."),
    "uninstall": Entry(
        "fedfleet.commands.uninstall:uninstall", "Take a program off this machine."
    ),
    "upgrade": Entry(
        "fedfleet.commands.upgrade:upgrade", "Bring another version into use, with a way back."
    ),
    "watch": Entry("fedfleet.commands.watch:watch", "Follow one task until it ends."),
}
#: A message must not wait 5 ms, Python's own choice, until the loop lets its session's thread run.
SWITCH_INTERVAL_S = 0.0005
#: These run until stopped, and so tell by default what they do.
SERVICES = frozenset({"broker", "central", "device", "gateway"})
#: A probe runs every few seconds on small machines: it logs nothing, and loads no logging.
PROBES = frozenset({"health"})
_LOGS = "fedfleet.logs"


class LazyGroup(click.Group):
    """A group whose sub-commands are named by ``COMMANDS``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names in alphabetical order."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return one sub-command, or None when there is none of that name."""
        entry = COMMANDS.get(cmd_name)
        return _load(cmd_name, entry) if entry else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries without importing what they summarize."""
        rows = [(name, COMMANDS[name].summary) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run the sub-command; its own kind of failure becomes one line and exit code 1."""
        try:
            return super().invoke(ctx)
        except FleetError as error:
            raise click.ClickException(str(error)) from error


def _load(name: str, entry: Entry) -> click.Command:
    if name not in PROBES:
        import_module(_LOGS)  # before anything else loads structlog: it is told to leave rich out
    module, _, attribute = entry.target.partition(":")
    try:
        command = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        missing = error.name or "a module"
        message = f"{name} needs {missing}: pip install 'fedfleet[testbed]'"
        raise click.ClickException(message) from error
    if not isinstance(command, click.Command):
        message = f"{entry.target} is not a command"
        raise TypeError(message)
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--log-level",
    type=click.Choice(LEVELS),
    envvar="FEDFLEET_LOG_LEVEL",
    show_envvar=True,
    help="Lowest level on stderr; info for services, else warning.",
)
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    default="json",
    envvar="FEDFLEET_LOG_FORMAT",
    show_envvar=True,
    show_default=True,
)
@click.version_option(package_name="fedfleet")
@click.pass_context
def cli(ctx: click.Context, log_level: str | None, log_format: str) -> None:
    """Train one model across a fleet of edge devices that keep their data to themselves."""
    if ctx.invoked_subcommand in PROBES:
        return
    logs = import_module(_LOGS)
    is_service = ctx.invoked_subcommand in SERVICES
    logs.configure(log_level or ("info" if is_service else "warning"), log_format)
    if is_service:
        sys.setswitchinterval(SWITCH_INTERVAL_S)


def main() -> None:
    """Run the command line; the console script of the distribution."""
    cli(prog_name="fedfleet")
