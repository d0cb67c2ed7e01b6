"""One program that counts its failpoints: ``python -m benchmarks.visits FILE VERB ...``.

It is ``fedfleet VERB ...``; when it ends, the count is written to ``FILE``.
"""

import sys
from pathlib import Path

from fedfleet.cli import main as fedfleet_main
from transport import failpoint_catalogue, failpoints


class Visits:
    """Counts; armed like a failpoint."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _name: str) -> None:
        self.count += 1


def main() -> None:
    path, *arguments = sys.argv[1:]
    visits = Visits()
    failpoints.arm(visits)
    failpoint_catalogue.arm = lambda _hook: None  # the program would arm nothing
    sys.argv = ["fedfleet", *arguments]
    try:
        fedfleet_main()
    finally:
        Path(path).write_text(str(visits.count), encoding="ascii")


if __name__ == "__main__":
    main()
