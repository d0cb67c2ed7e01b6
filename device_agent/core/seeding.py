"""The seed of one round on one device.

Everything random of a job (the order of examples, dropout, quantization noise) starts from it, so
a job that is done again after a crash gives the same bytes.
"""

import hashlib

_BITS = 53


def round_seed(task: str, round_number: int, device: str, task_seed: int) -> int:
    """Return the seed, 0 to 2**53 - 1: it differs by task, round and device.

    Args:
        task: Task id.
        round_number: Number of the round.
        device: This device's id.
        task_seed: ``seed`` of the task's training.
    """
    text = f"{task}|{round_number}|{device}|{task_seed}"
    first = hashlib.sha256(text.encode()).digest()[:8]
    return int.from_bytes(first, "big") & ((1 << _BITS) - 1)
