"""Write the golden vectors of every codec: one JSON file each in ``updates/``.

Run by ``make vectors``. A changed payload means a changed wire format: it needs a new codec id and
number, and the old vectors must go on decoding.
"""

import json
from pathlib import Path

import numpy as np

from updates.codecs import Codec, create, names
from updates.layout import Layout

DIRECTORY = Path(__file__).parent / "updates"
SEED = 7
SHAPES = {"dense.bias": (3,), "dense.weight": (2, 4), "scale": ()}
INPUTS = {
    "mixed signs and magnitudes": [0.5, -1.25, 0.0, 1, -2, 3e-3, 70000, -1e-6, 0.1, -0.1, 8, -0.3],
    "all zero": [0.0] * 12,
    "equal magnitudes": [1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1],
}
PARAMS = {"topk": {"fraction": 0.25}}


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


def main() -> None:
    """Write all files."""
    DIRECTORY.mkdir(exist_ok=True)
    for codec_id in names():
        params = PARAMS.get(codec_id, {})
        text = json.dumps(golden(create(codec_id, params), params), indent=2)
        (DIRECTORY / f"{codec_id}.json").write_text(text + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
