"""Set many Jetsons up over ssh, in parallel: ``python -m deploy.jetson.install_fleet HOSTS.csv``.

HOSTS.csv has a line ``host,region,id,profile`` for each. Keys and ports belong in ~/.ssh/config;
nothing is asked. Run again, it does only what is missing, and upgrades what is older.
"""

import json
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deploy.jetson.fleet_hosts import Host, HostsError, read_hosts
from deploy.jetson.fleet_install import Choices, Result, set_up
from fedfleet.machine_setup.layout import SetupError
from fedfleet.machine_setup.wheels import version_of
from transport.broker_url import BrokerUrlError, parse_broker_url

_STYLES = {"failed": "red", "installed": "green", "upgraded": "green", "unchanged": "green"}


class Progress:
    """What each host is at: a table on a terminal, a line for each change elsewhere."""

    def __init__(self, hosts: Sequence[Host], console: Console) -> None:
        self._states = {host.address: "waiting" for host in hosts}
        self._console = console
        self._lock = threading.Lock()
        self._live = Live(self._table(), console=console) if console.is_terminal else None

    def __enter__(self) -> "Progress":  # noqa: PYI034
        """Begin to show."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def tell(self, address: str, state: str) -> None:
        """Show the state of one host; any thread may."""
        with self._lock:
            self._states[address] = state
            if self._live is not None:
                self._live.update(self._table())
            else:
                self._console.print(f"{address}: {state}", highlight=False)

    def _table(self) -> Table:
        counts = Counter(self._states.values())
        title = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        table = Table("host", "state", title=title)
        for address, state in self._states.items():
            table.add_row(address, state, style=_STYLES.get(state.partition(":")[0]))
        return table


def install_all(
    hosts: Sequence[Host], choices: Choices, jobs: int, progress: Progress
) -> list[Result]:
    """Set all hosts up, ``jobs`` at a time; return their results in the order of the list."""

    def one(host: Host) -> Result:
        result = set_up(host, choices, lambda step: progress.tell(host.address, step))
        why = f": {result.kind}" if result.kind else ""
        progress.tell(host.address, result.outcome + why)
        return result

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(one, hosts))


def summary(results: Sequence[Result]) -> str:
    """Return what was done, and what failed and why, in lines."""
    counts = Counter(result.outcome for result in results)
    lines = [", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))]
    failed = [result for result in results if result.outcome == "failed"]
    failed.sort(key=lambda result: (result.kind, result.host))
    why = [f"  {r.kind:16}  {r.host} ({r.device}): {r.detail}" for r in failed]
    return "\n".join([*lines, *why])


@click.command()
@click.argument("hosts_file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--broker", required=True, metavar="URL", help="Without a password.")
@click.option("--password-file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--wheel", required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
@click.option(
    "--from",
    "folder",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder of all other wheels, for hosts without a network.",
)
@click.option("--data", multiple=True, metavar="SOURCE", help="Of every device; repeatable.")
@click.option("--jobs", type=click.IntRange(1, 256), default=16, show_default=True)
@click.option("--wait-s", type=float, default=60.0, show_default=True, help="To become healthy.")
@click.option("--min-free-mb", type=int, default=1000, show_default=True, help="In /opt.")
@click.option("--connect-timeout-s", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--timeout-s", type=float, default=1800.0, show_default=True, help="Of one step.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(  # noqa: PLR0913 - one argument an option
    *,
    hosts_file: Path,
    broker: str,
    password_file: Path | None,
    wheel: Path,
    folder: Path | None,
    data: tuple[str, ...],
    jobs: int,
    as_json: bool,
    wait_s: float,
    min_free_mb: int,
    connect_timeout_s: int,
    timeout_s: float,
) -> None:
    """Install or upgrade the device agent on every host of a list.

    Exit code 0: all are set up and healthy; 1: some are not; 2: the command makes no sense.
    """
    try:
        hosts, version = read_hosts(hosts_file), version_of(wheel)
        _check_broker(broker)
        password = password_file.read_text(encoding="utf-8") if password_file else None
    except (HostsError, SetupError, BrokerUrlError, OSError) as error:
        raise click.UsageError(str(error)) from error
    choices = Choices(
        wheel=wheel,
        version=version,
        folder=folder,
        broker=broker,
        password=password,
        data=data,
        wait_s=wait_s,
        min_free_mb=min_free_mb,
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
    )
    with Progress(hosts, Console(stderr=True)) as progress:
        results = install_all(hosts, choices, jobs, progress)
    if as_json:
        click.echo(json.dumps([asdict(result) for result in results]))
    else:
        click.echo(summary(results))
    sys.exit(1 if any(result.outcome == "failed" for result in results) else 0)


def _check_broker(url: str) -> None:
    if parse_broker_url(url).password is not None:
        message = "--broker: a password would show in lists of processes; give --password-file"
        raise click.UsageError(message)


if __name__ == "__main__":
    main(prog_name="install_fleet")
