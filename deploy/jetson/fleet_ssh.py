"""Plain ssh and scp, without questions, and what their failures mean."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SSH_FAILED = 255
_OPTIONS = ("-o", "BatchMode=yes", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
#: What ssh says when it does not get in, and what that is called; the first that fits.
_REFUSALS = (
    ("Host key verification failed", "host key"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "host key"),
    ("Permission denied", "auth"),
    ("Too many authentication failures", "auth"),
)
#: What a command on the host says when it fails.
_FAILURES = (
    ("a password is required", "sudo"),
    ("No space left on device", "disk"),
    ("Disk quota exceeded", "disk"),
    ("not healthy", "unit not healthy"),
    ("did not become healthy", "unit not healthy"),
)


class HostFailedError(Exception):
    """A host could not be set up.

    Attributes:
        kind: What failed, in a word or two: ``auth``, ``disk``, ``unreachable``, ...
        detail: What was said.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Connection:
    """How one host is reached.

    Attributes:
        address: ``[user@]name``.
        connect_timeout_s: Until a host that does not answer is given up.
        timeout_s: The same for one command.
    """

    address: str
    connect_timeout_s: int
    timeout_s: float

    def run(self, script: str, *, stdin: str = "", kind: str) -> str:
        """Run a shell script on the host; return what it printed.

        Args:
            script: For ``sh``.
            stdin: What it may read, a password say: no list of processes shows it.
            kind: What a failure is called that says nothing better itself.

        Raises:
            HostFailedError: It fails.
        """
        return self._run(["ssh", *self._options(), self.address, script], stdin, kind)

    def copy(self, paths: Sequence[Path], folder: str) -> None:
        """Copy files into a folder of the host's.

        Raises:
            HostFailedError: It fails.
        """
        command = ["scp", "-q", *self._options(), *(str(path) for path in paths)]
        self._run([*command, f"{self.address}:{folder}/"], "", "copy")

    def _options(self) -> list[str]:
        return [*_OPTIONS, "-o", f"ConnectTimeout={self.connect_timeout_s}"]

    def _run(self, command: list[str], stdin: str, kind: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - ssh or scp, with an address that was checked
                command,
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=self.timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            detail = f"not done after {self.timeout_s:.0f} s"
            raise HostFailedError(kind, detail) from error
        except OSError as error:
            detail = f"{command[0]}: {error}"
            raise HostFailedError(kind, detail) from error
        if done.returncode != 0:
            raise failure(done.returncode, done.stderr, kind)
        return done.stdout


def failure(code: int, stderr: str, kind: str) -> HostFailedError:
    """Return what an exit code and a text on stderr mean."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    is_refused = code == _SSH_FAILED
    for words, meaning in _REFUSALS if is_refused else _FAILURES:
        for line in lines:
            if words in line:
                return HostFailedError(meaning, line.strip())
    detail = lines[-1].strip() if lines else f"exit code {code}"
    return HostFailedError("unreachable" if is_refused else kind, detail)
