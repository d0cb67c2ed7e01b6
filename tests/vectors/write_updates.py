"""Write the golden vectors of every codec: JSON files in ``updates/``, one a variant.

Run by ``make vectors``, which writes the files that are there anew. A changed payload means a
changed wire format: it needs a new codec id and number, and the old vectors must go on decoding.
A new codec, or a new variant of one, is added by its name and its parameters::

    python tests/vectors/write_updates.py uniform
    python tests/vectors/write_updates.py uniform.two-bits '{"bits": 2}'

The part of the name before the dot is the codec's id.
"""

import json
import sys
from pathlib import Path

import numpy as np

from updates.codecs import Codec, create
from updates.layout import Layout

DIRECTORY = Path(__file__).parent / "updates"
SEED = 7
SHAPES = {"dense.bias": (3,), "dense.weight": (2, 4), "scale": ()}
INPUTS = {
    "mixed signs and magnitudes": [0.5, -1.25, 0.0, 1, -2, 3e-3, 70000, -1e-6, 0.1, -0.1, 8, -0.3],
    "all zero": [0.0] * 12,
    "equal magnitudes": [1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1],
}


def golden(codec: Codec, params: dict[str, object]) -> dict[str, object]:
    """Return what the vector file of one codec holds."""
    layout = Layout.of(SHAPES)
    return {
        "codec": codec.codec_id,
        "params": params,
        "seed": SEED,
        "layout": {name: list(shape) for name, shape in SHAPES.items()},
        "layout_sha256": layout.digest,
        "cases": [case(codec, layout, name, values) for name, values in INPUTS.items()],
    }


def case(codec: Codec, layout: Layout, name: str, values: list[float]) -> dict[str, str]:
    """Return one input with its payload and what the payload decodes to, floats as hex bytes."""
    vector = np.array(values, dtype=np.float32)
    payload = codec.encode(vector, layout, np.random.default_rng(SEED))
    return {
        "input": name,
        "input_f32_le": vector.astype("<f4").tobytes().hex(),
        "payload": payload.hex(),
        "decoded_f32_le": codec.decode(payload, layout).astype("<f4").tobytes().hex(),
    }


def write(name: str, params: dict[str, object]) -> None:
    """Write the file of one variant."""
    codec = create(name.partition(".")[0], params)
    text = json.dumps(golden(codec, params), indent=2)
    (DIRECTORY / f"{name}.json").write_text(text + "\n", encoding="ascii")


def main(arguments: list[str]) -> None:
    """Write the file of a new variant, or all files anew."""
    if arguments:
        write(arguments[0], json.loads(arguments[1]) if arguments[1:] else {})
        return
    for path in sorted(DIRECTORY.glob("*.json")):
        write(path.stem, json.loads(path.read_text(encoding="ascii"))["params"])


if __name__ == "__main__":
    main(sys.argv[1:])
