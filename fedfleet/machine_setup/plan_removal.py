"""What removes a program from a machine: a pure list of actions."""

from fedfleet.machine_setup.actions import Action, Remove, RemoveGroup, Systemctl
from fedfleet.machine_setup.layout import CONFIG, PROGRAMS, VENVS, Program
from fedfleet.machine_setup.plan import Seen


def plan_uninstall(program: Program, seen: Seen, *, purge: bool) -> list[Action]:
    """Return what removes a program; its settings and its state stay unless ``purge``.

    The last program takes the virtual environments with it.
    """
    actions: list[Action] = []
    is_there = program.unit_path in seen.files
    if seen.has_systemd and is_there:
        actions.append(Systemctl(("disable", "--now", program.unit)))
    if is_there:
        actions.append(Remove(program.unit_path))
    if any(path.is_relative_to(program.drop_ins) for path in seen.files):
        actions.append(Remove(program.drop_ins))
    if seen.has_systemd and actions:
        actions += [
            Systemctl(("daemon-reload",)),
            Systemctl(("reset-failed", program.unit)),
        ]
    others = [other for other in seen.installed() if other != program]
    if purge:
        actions += _purging(program, seen)
    if not others and (seen.venvs or seen.current is not None):
        actions.append(Remove(VENVS))
    is_last = not others and not _kept_by_others(program, seen)
    if purge and is_last and "fedfleet" in seen.groups:
        actions += [Remove(CONFIG), RemoveGroup()]
    return actions


def _kept_by_others(program: Program, seen: Seen) -> bool:
    """Tell whether a program that was removed without a purge has settings or passwords here."""
    others = [other for other in PROGRAMS.values() if other != program]
    return any(
        path == other.settings or path.is_relative_to(other.credentials)
        for other in others
        for path in seen.files
    )


def _purging(program: Program, seen: Seen) -> list[Action]:
    actions: list[Action] = []
    if program.settings in seen.files:
        actions.append(Remove(program.settings))
    if any(path.is_relative_to(program.credentials) for path in seen.files):
        actions.append(Remove(program.credentials))
    if program.name in seen.states:
        actions += [Remove(program.state), Remove(program.private_state)]
    return actions
