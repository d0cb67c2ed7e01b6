"""Python, the wheels that the program loads, and what onnxruntime computes on.

A wheel is loaded in a process of its own: one that was built for another processor ends the
process that loads it.
"""

import json
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from fedfleet.doctor.finding import Finding, failed, ok, warning
from fedfleet.doctor.subject import Wheel

_OLDEST, _NEWEST = (3, 10), (3, 14)
#: A folder that the doctor happens to run in, as root perhaps, is none to load code from.
_FROM_HERE = "import sys; sys.path = [folder for folder in sys.path if folder]\n"
_LOAD = "import {0}; print(getattr({0}, '__version__', ''))"
_PROVIDERS = """
import json, sys
from device_agent.training.onnx_runtime import find_providers
found = find_providers(sys.argv[1].split(","))
print(json.dumps([found.names, found.fallback]))
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a child process.

    Attributes:
        text: The last line that it printed; of its error stream when it failed.
        returncode: As ``subprocess`` gives it; None when it took too long.
    """

    text: str
    returncode: int | None


def judge_python(version: tuple[int, int], shown: str) -> Finding:
    """Tell whether this Python can run the program."""
    if version < _OLDEST:
        advice = f"install Python {_OLDEST[0]}.{_OLDEST[1]} or newer and make the venv anew"
        return failed("python", shown, advice)
    if version > _NEWEST:
        advice = "wheels may be missing for it; an older one is safe: up to 3.14 is tested"
        return warning("python", shown, advice)
    return ok("python", shown)


def examine_python() -> list[Finding]:
    """Look at the running Python."""
    shown = f"{platform.python_implementation()} {platform.python_version()}"
    shown += f", {platform.machine()}, {sys.executable}"
    return [judge_python(sys.version_info[:2], shown)]


def examine_wheel(wheel: Wheel, within_s: float) -> list[Finding]:
    """Load one wheel and judge what became of it."""
    return [judge_wheel(wheel, _run(_LOAD.format(wheel.name), (), within_s), within_s)]


def judge_wheel(wheel: Wheel, outcome: Outcome, within_s: float) -> Finding:
    """Tell whether a wheel is there and fits this machine."""
    check, code = f"wheel.{wheel.name}", outcome.returncode
    if code == 0:
        return ok(check, outcome.text or "loaded")
    again = f"pip install --force-reinstall 'fedfleet[{wheel.extra}]'"
    if code is None:
        seen = f"not loaded within {within_s:g} s"
        return warning(
            check, seen, "the disk or the processor is overloaded: run the doctor again"
        )
    if code < 0:
        name = _signal_name(-code)
        advice = f"the wheel was built for another processor: {again}, or an older version of it"
        return Finding(check, wheel.missing, f"loading it ended with {name}", advice)
    if f"No module named '{wheel.name}'" in outcome.text:
        advice = f"pip install 'fedfleet[{wheel.extra}]'"
        return Finding(check, wheel.missing, "not installed", advice)
    advice = f"it does not fit this system or is incomplete: {again}"
    return Finding(check, wheel.missing, outcome.text, advice)


def examine_providers(asked: Sequence[str], within_s: float) -> list[Finding]:
    """Try the execution providers that the settings ask for; the CPU needs no look."""
    if set(asked) <= {"cpu"}:
        return [ok("providers", "cpu, as asked")] if asked else []
    return [judge_providers(asked, _run(_PROVIDERS, (",".join(asked),), within_s))]


def judge_providers(asked: Sequence[str], outcome: Outcome) -> Finding:
    """Tell whether what was asked for starts here."""
    wanted = ", ".join(asked)
    advice = (
        "install the onnxruntime that the GPU's driver goes with (onnxruntime-gpu, or the wheel "
        "of the Jetson's JetPack), or ask for cpu only"
    )
    if outcome.returncode != 0:
        seen = f"{wanted} asked; trying failed: {outcome.text or outcome.returncode}"
        return failed("providers", seen, advice)
    names, fallback = json.loads(outcome.text)
    if fallback:
        seen = f"{wanted} asked, {', '.join(names)} works: {fallback}"
        return warning("providers", seen, advice)
    return ok("providers", ", ".join(names))


def _run(code: str, arguments: Sequence[str], within_s: float) -> Outcome:
    try:
        done = subprocess.run(  # noqa: S603 - this Python, and a program of our own
            [sys.executable, "-c", _FROM_HERE + code, *arguments],
            capture_output=True,
            text=True,
            timeout=within_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome("", None)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return Outcome(lines[-1] if lines else "", done.returncode)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
