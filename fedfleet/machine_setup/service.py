"""One running program, as systemd and its own health.json tell of it."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedfleet.machine_setup.layout import Program
from fedfleet.machine_setup.machine import Machine
from transport.health_file import HealthError, problem, read_health

_POLL_S = 0.5
_MAX_AGE_S = 15.0
#: Healthy means so at two looks, so that a program which dies at once does not pass.
_LOOKS = 2
_LOG_LINES = 12

Ask = Callable[[Sequence[str]], str]


def ask(command: Sequence[str]) -> str:
    """Return what a command prints, whether it succeeds or not."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout


@dataclass(frozen=True, slots=True)
class UnitState:
    """What ``systemctl show`` tells of a unit.

    Attributes:
        active: ``active``, ``activating``, ``failed``, ...
        main_pid: Of its process; 0: there is none.
        restarts: How often systemd has started it again by itself.
        result: Why it ended last, ``success`` while it runs.
    """

    active: str
    main_pid: int
    restarts: int
    result: str


class Service:
    """Looks at one program, and waits for it."""

    def __init__(  # noqa: PLR0913 - what a test replaces
        self,
        program: Program,
        machine: Machine,
        *,
        ask: Ask = ask,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._program = program
        self._machine = machine
        self._ask = ask
        self._clock = clock
        self._wall_clock = wall_clock
        self._pause = pause

    def state(self) -> UnitState:
        """Return what systemd says of the unit."""
        names = ("ActiveState", "MainPID", "NRestarts", "Result")
        shown = self._ask(["systemctl", "show", self._program.unit, "-p", ",".join(names)])
        found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return UnitState(
            found.get("ActiveState", "unknown"),
            int(found.get("MainPID") or 0),
            int(found.get("NRestarts") or 0),
            found.get("Result", "unknown"),
        )

    def log_lines(self) -> list[str]:
        """Return the last lines of its log."""
        command = ["journalctl", "-u", self._program.unit, "-n", str(_LOG_LINES)]
        return self._ask([*command, "-o", "cat", "--no-pager"]).strip().splitlines()

    def trouble(self) -> str | None:
        """Return what keeps it from being healthy now, in a sentence, or None."""
        state = self.state()
        if state.active != "active":
            return f"{self._program.unit} is {state.active} (last result: {state.result})"
        try:
            health = read_health(self._machine.real(self._program.state))
        except HealthError as error:
            return str(error)
        if health.pid != state.main_pid:
            return f"process {state.main_pid} has not said yet how it is"
        return problem(health, self._wall_clock(), _MAX_AGE_S)

    def wait_healthy(self, wait_s: float) -> str | None:
        """Wait until it is healthy and remains so for a moment.

        Returns:
            None, or what was wrong when the time was over or nothing more could come of it.
        """
        until_s = self._clock() + wait_s
        good_looks = 0
        while True:
            wrong = self.trouble()
            good_looks = good_looks + 1 if wrong is None else 0
            if good_looks == _LOOKS:
                return None
            if wrong is not None and self.state().active == "failed":
                return wrong
            if self._clock() >= until_s:
                return wrong or f"{self._program.unit} has only just become healthy"
            self._pause(_POLL_S)
