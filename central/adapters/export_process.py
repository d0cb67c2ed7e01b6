"""Has a model written as ONNX by a process that ends when it is done."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from schemas.messages import DataDescription
from schemas.tasks import TaskSubmission
from transport.full_disk import NO_SPACE, no_space

_COMMAND = (sys.executable, "-m", "central.modeling.exporting")
_TIMEOUT_S = 900.0
_SHOWN_CHARACTERS = 300


class ExportProcessError(RuntimeError):
    """The process did not write the model; the text is its last word."""


class ExportProcess:
    """The port ``Exporter``; one model at a time."""

    def __init__(
        self, models: Mapping[str, str], cache: Path, build_timeout_s: float = _TIMEOUT_S
    ) -> None:
        """Keep what the process must know.

        Args:
            models: What central's settings allow beyond the built-in models.
            cache: Folder of the forward graphs.
            build_timeout_s: How long building one may take, if it is not there.
        """
        self._models = dict(models)
        self._cache = cache
        self._build_timeout_s = build_timeout_s
        self._lock = threading.Lock()
        self._running: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def write(
        self,
        submission: TaskSubmission,
        data: DataDescription,
        source: Path,
        target: Path,
        forward_key: str | None = None,
    ) -> None:
        """Write the model in ``source`` for inference to ``target``.

        Raises:
            ExportProcessError: It was not written.
            OSError: The disk is full.
        """
        request = {
            "parent": os.getpid(),
            "timeout_s": self._build_timeout_s,
            "models": self._models,
            "cache": str(self._cache.resolve()),
            "submission": json.loads(submission.model_dump_json()),
            "data": json.loads(data.model_dump_json()),
            "source": str(source.resolve()),
            "target": str(target.resolve()),
            "forward_key": forward_key,
        }
        timeout_s = _TIMEOUT_S + self._build_timeout_s
        process = self._start()
        try:
            _, said = process.communicate(json.dumps(request).encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            process.kill()
            message = f"not written within {timeout_s:g} s"
            raise ExportProcessError(message) from error
        if process.returncode != 0:
            last = said.decode(errors="replace").strip().rpartition("\n")[2]
            if process.returncode == NO_SPACE:
                raise no_space(last[-_SHOWN_CHARACTERS:])
            message = f"exit code {process.returncode}: {last[-_SHOWN_CHARACTERS:]}"
            raise ExportProcessError(message)

    def close(self) -> None:
        """End the process that is running, if one is."""
        with self._lock:
            self._is_closed = True
            if self._running is not None:
                self._running.kill()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self._lock:
            if self._is_closed:
                message = "central stops"
                raise ExportProcessError(message)
            self._running = subprocess.Popen(  # noqa: S603 - a fixed command of our own
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
            return self._running
