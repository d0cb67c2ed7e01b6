"""How much memory a job needs, estimated before it is accepted.

::

    parameters * 4 bytes * (copies + optimizer state)
      + batch_size * input elements * 4 bytes * ACTIVATIONS
      + training graph as it travels, and twice what it may unpack to
      + overhead of the training library

Copies: the global model, the trained one, its gradient, the update, and one for the encoder. A
drill has no gradient and no trained copy. With error feedback two more: what was left out before,
and what the other end decodes; in a lazy task three: the vector of both ends, its next one and the
innovation. SGD with momentum keeps one value a parameter, Adam two (Kingma and Ba 2015, algorithm
1). What a network's layers keep for the backward pass is not known
here; ``ACTIVATIONS`` times the input stands for it, which covers the built-in networks. A graph is
held as a file and in the runtime's session; nothing above its limit is ever unpacked.
"""

from collections.abc import Mapping
from math import prod

from device_agent.core.backend import ONNX
from learning.graph_file import unpacked_limit
from schemas.limits import MIB
from schemas.messages import Memory, TrainingPlan
from schemas.tasks import Training

FLOAT_BYTES = 4
COPIES_TRAINING = 5
COPIES_DRILL = 3
COPIES_MEMORY: Mapping[Memory, int] = {"none": 0, "feedback": 2, "lazy": 3}
ACTIVATIONS = 32
#: An unpacked graph, and the runtime's session of it.
GRAPH_COPIES = 2
#: A training library that is loaded, without any model; torch's for one that is not known.
LIBRARY_BYTES = 180 * MIB
ONNX_LIBRARY_BYTES = 40 * MIB


def needed_bytes(
    plan: TrainingPlan, backend: str | None = None, graph_bytes: int = 0, *, is_warm: bool
) -> int:
    """Return the memory in bytes that a job takes on top of what the program uses now.

    Args:
        plan: The job.
        backend: What it is trained with.
        graph_bytes: Size of its training graph, as it travels.
        is_warm: Whether the training library is loaded already.
    """
    if plan.training.is_drill:
        # What a bid says of its update is of the decoded one; training has that copy to spare.
        copies = COPIES_DRILL + COPIES_MEMORY[plan.memory] + plan.bids
        return plan.parameters * FLOAT_BYTES * copies
    copies = COPIES_TRAINING + _optimizer_values(plan.training) + COPIES_MEMORY[plan.memory]
    batch = plan.training.batch_size * prod(plan.input_shape) * FLOAT_BYTES
    library = ONNX_LIBRARY_BYTES if backend == ONNX else LIBRARY_BYTES
    model, activations = plan.parameters * FLOAT_BYTES * copies, batch * ACTIVATIONS
    return model + activations + _graph(graph_bytes) + (0 if is_warm else library)


def _graph(packed: int) -> int:
    return packed + GRAPH_COPIES * unpacked_limit(packed) if packed else 0


def _optimizer_values(training: Training) -> int:
    if training.optimizer != "sgd":
        return 2
    return 1 if training.momentum > 0 else 0
