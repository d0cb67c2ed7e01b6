"""Write an overlay's secrets from their examples, with passwords that nobody knows yet.

``python write_secrets.py overlays/edge-fleet``; a file that is there is kept, unless ``--renew``.
The same word of the examples gets the same password everywhere in the overlay.
"""

import argparse
import re
import secrets
from collections.abc import Callable
from pathlib import Path

_PLACEHOLDER = re.compile(r"change-me-\d+")


def write_secrets(overlay: Path, draw: Callable[[], str], *, renew: bool = False) -> list[Path]:
    """Write what is missing; return the files written.

    Args:
        overlay: Folder of a kustomization.
        draw: Returns a new password, of letters and digits.
        renew: Whether to replace what is there.

    Raises:
        FileExistsError: Some files are there and others are not: their passwords would differ.
    """
    pairs = [(path, path.with_suffix("")) for path in sorted(overlay.rglob("*.example"))]
    there = [target for _, target in pairs if target.exists()]
    if there and not renew:
        if len(there) < len(pairs):
            message = f"{there[0]} is there and others are not; --renew writes all of them anew"
            raise FileExistsError(message)
        return []
    drawn: dict[str, str] = {}
    for example, target in pairs:
        text = example.read_text(encoding="utf-8")
        for word in sorted(set(_PLACEHOLDER.findall(text)) - drawn.keys()):
            drawn[word] = draw()
        target.touch(mode=0o600)
        target.write_text(_PLACEHOLDER.sub(lambda match: drawn[match[0]], text), encoding="utf-8")
    return [target for _, target in pairs]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("overlay", type=Path)
    parser.add_argument(
        "--renew", action="store_true", help="replace the passwords that are there"
    )
    chosen = parser.parse_args()
    for path in write_secrets(chosen.overlay, lambda: secrets.token_hex(16), renew=chosen.renew):
        print(path)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
