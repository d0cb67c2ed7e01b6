"""The codecs that tests go through: one for each file of golden vectors."""

import json
from pathlib import Path

from updates.codecs import Codec, create

DIRECTORY = Path(__file__).parents[1] / "vectors" / "updates"


def golden_files() -> dict[str, Path]:
    """Return the files of golden vectors by variant: a codec's id, maybe a dot and a name."""
    return {path.stem: path for path in sorted(DIRECTORY.glob("*.json"))}


def variants() -> dict[str, Codec]:
    """Return the codec of each variant, made with the parameters of its file."""
    return {name: _codec(name, path) for name, path in golden_files().items()}


def _codec(name: str, path: Path) -> Codec:
    golden = json.loads(path.read_text(encoding="ascii"))
    return create(name.partition(".")[0], golden["params"])
