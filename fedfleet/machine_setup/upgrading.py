"""An upgrade with a way back: the new version beside the old, and the old again if it fails."""

from collections.abc import Callable
from dataclasses import dataclass, field

from fedfleet.machine_setup.actions import MakeVenv, PointTo, Remove, Source, Systemctl
from fedfleet.machine_setup.kept_database import KeptDatabase
from fedfleet.machine_setup.layout import Program, SetupError, venv
from fedfleet.machine_setup.machine import Machine
from fedfleet.machine_setup.plan import Seen
from fedfleet.machine_setup.service import Service

Say = Callable[[str], None]


class UpgradeFailedError(SetupError):
    """The new version did not become healthy; the old one was put back.

    Attributes:
        outcome: What happened.
    """

    def __init__(self, outcome: "Outcome") -> None:
        log = "\n".join(f"    {line}" for line in outcome.log)
        super().__init__(
            f"{outcome.wanted} did not become healthy: {outcome.reason}. {outcome.after}."
            f"\nThe last lines of its log:\n{log}"
        )
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an upgrade has done.

    Attributes:
        previous: The version before.
        wanted: The version asked for.
        current: The version that is in use now.
        reason: Why ``wanted`` is not, or None.
        after: How the previous version is after a roll-back.
        log: Last lines of the log of what did not become healthy.
        removed: Versions that were removed, as two are kept.
    """

    previous: str
    wanted: str
    current: str
    reason: str | None = None
    after: str = ""
    log: tuple[str, ...] = ()
    removed: tuple[str, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Brings another version into use, or stays with the one that is.

    Attributes:
        program: It is started again; other programs of this machine take the new version with
            their next start.
        machine: Where.
        service: How to look at the program.
        wait_s: How long either version may take to become healthy.
        say: Told of every step.
    """

    program: Program
    machine: Machine
    service: Service
    wait_s: float
    say: Say

    def to(self, source: Source) -> Outcome:
        """Install a version, switch to it, and back if it is not healthy in time.

        Raises:
            SetupError: There is nothing to upgrade, or the version cannot be installed; the
                program was not touched.
            UpgradeFailedError: It did not become healthy; the previous version is in use again.
        """
        seen = self.machine.look()
        previous, version = self._previous(seen), source.version
        if version == previous:
            return Outcome(previous, previous, previous)
        self._install(source, seen)
        kept = KeptDatabase(self.program, self.machine.real(self.program.state))
        try:
            reason = self._bring(version, kept)
        except KeyboardInterrupt:  # the program may be stopped, or in a version nobody looked at
            reason = "the upgrade was interrupted"
        if reason is None:
            kept.forget()
            removed = self._forget_all_but({previous, version}, seen)
            return Outcome(previous, version, version, removed=removed)
        self.say(f"{version} is not healthy: {reason}")
        log = tuple(self.service.log_lines())
        after = self._take_back(previous, version, kept)
        raise UpgradeFailedError(Outcome(previous, version, previous, reason, after, log))

    def _bring(self, version: str, kept: KeptDatabase) -> str | None:
        """Switch to a version; return why it is not healthy, or None.

        Raises:
            SetupError: The database cannot be kept; the program was started again as it was.
        """
        self._stop()
        try:
            kept.keep()
        except SetupError:
            self._start()
            raise
        try:
            self._start(version)
        except SetupError as error:
            return str(error)
        return self.service.wait_healthy(self.wait_s)

    def _take_back(self, previous: str, version: str, kept: KeptDatabase) -> str:
        """Switch back, with the database of before if need be; return how things are then."""
        self._stop()
        said = ""
        try:
            if kept.put_back():
                said = ", with its database of before the upgrade"
                self.say(f"put the database back, which {version} had brought up to date")
        except SetupError as error:
            wrong: str | None = str(error)
            self._start(previous)
        else:
            kept.forget()
            self._start(previous)
            wrong = self.service.wait_healthy(self.wait_s)
        self.machine.perform(Remove(venv(version)))
        if wrong is None:
            return f"{previous} runs again{said}"
        return f"{previous} is back{said}, but: {wrong}"

    def _previous(self, seen: Seen) -> str:
        name = self.program.name
        if self.program.unit_path not in seen.files or seen.current is None:
            message = f"{name} is not installed here: fedfleet install {name}"
            raise SetupError(message)
        return seen.current

    def _install(self, source: Source, seen: Seen) -> None:
        """Install the version with all that programs of this machine had in the one before."""
        present = seen.venvs.get(source.version)
        current = seen.current or ""
        before = seen.venvs.get(current)
        extras = before.extras if before else frozenset(p.name for p in seen.installed())
        if present is not None and source.sha256 in (None, present.sha256):
            if extras <= present.extras:
                return
            extras |= present.extras
        elif present is not None:
            self.machine.perform(Remove(venv(source.version)))
        python = (self.machine.real(venv(current)) / "bin" / "python").resolve()
        action = MakeVenv(source, tuple(sorted(extras)), str(python))
        self.say(str(action))
        self.machine.perform(action)

    def _stop(self) -> None:
        """Stop the program: the link and the database change while nothing of it runs."""
        self._do(Systemctl(("stop", self.program.unit)))

    def _start(self, version: str | None = None) -> None:
        """Start the program, in another version if one is given; do not wait for it."""
        unit = self.program.unit
        if version is not None:
            self._do(PointTo(version))
        self._do(Systemctl(("reset-failed", unit)))
        self._do(Systemctl(("start", "--no-block", unit)))

    def _do(self, action: Systemctl | PointTo) -> None:
        self.say(str(action))
        self.machine.perform(action)

    def _forget_all_but(self, kept: set[str], seen: Seen) -> tuple[str, ...]:
        others = tuple(sorted(set(seen.venvs) - kept))
        for version in others:
            self.machine.perform(Remove(venv(version)))
        return others
