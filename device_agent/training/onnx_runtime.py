"""onnxruntime's sessions as a device needs them: few threads, little memory, known providers.

onnxruntime is imported when the first session is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog

from schemas.messages import Precision

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

_LOG = structlog.get_logger()

CPU = "cpu"
#: Names in settings and births -> names of onnxruntime.
PROVIDERS = {
    CPU: "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
#: Providers that compute a graph of float32 in float16 when asked, and how they are asked. The
#: runtime's parser takes "True" and refuses "1".
_FLOAT16_OPTIONS = {"tensorrt": {"trt_fp16_enable": "True"}}
#: From so many nodes on, planning which buffers to use again takes longer than training.
_MANY_NODES = 3000
_ERRORS_ONLY = 3
#: ``y = Identity(x)`` of one number, an ONNX file: shows whether a provider really begins.
_PROBE = bytes.fromhex(
    "080812003a370a100a017812017922084964656e746974791201705a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a001012"
)
#: Otherwise the runtime takes a file with "ORTM" in its fifth to eighth byte for one of its own
#: format, which the reader of graphs does not see into.
_ONLY_ONNX = ("session.load_model_format", "ONNX")
_SHRINK = "memory.enable_memory_arena_shrinkage"


@dataclass(frozen=True, slots=True)
class Providers:
    """What sessions are made with.

    Attributes:
        names: Keys of ``PROVIDERS``, best first; the last one is the CPU. Empty: no onnxruntime.
        fallback: Why it is not all that was asked for, or None.
        precision: What the first one computes in. The others are for what it cannot do, and
            compute in float32.
    """

    names: tuple[str, ...] = (CPU,)
    fallback: str | None = None
    precision: Precision = "float32"

    @property
    def accelerator(self) -> str | None:
        """The first one, if it is not the CPU."""
        best = next(iter(self.names), CPU)
        return None if best == CPU else best


ON_CPU = Providers()


def find_providers(asked: Sequence[str], precision: Precision = "float32") -> Providers:
    """Return which of the providers asked for work here; only the CPU needs no look.

    Args:
        asked: Keys of ``PROVIDERS``, best first.
        precision: What they are asked to compute in.
    """
    reasons = _reasons(asked)
    working = [name for name in dict.fromkeys(asked) if not reasons.get(name)]
    if CPU not in working:
        working.append(CPU)
    missing = [f"{name}: {why}" for name, why in reasons.items() if why]
    if precision == "float16" and (why := _why_not_float16(working[0])):
        missing.append(f"float16 asked, {why}")
        precision = "float32"
    return Providers(tuple(working), "; ".join(missing) or None, precision)


def no_providers(backends: Sequence[str], precision: Precision) -> Providers:
    """Return what a device without onnxruntime says of itself.

    Args:
        backends: Those that it has instead.
        precision: What they are asked to compute in.
    """
    if precision == "float32" or not backends:
        return Providers(())
    return Providers((), f"{precision} asked, {backends[0]} computes in float32")


def make_session(
    file: bytes, nodes: int, threads: int, providers: Providers
) -> "InferenceSession":
    """Return a session of a checked graph.

    Args:
        file: The ONNX file.
        nodes: How many nodes it has.
        threads: For one operator.
        providers: What it computes on and in.
    """
    import onnxruntime  # noqa: PLC0415

    wanted = [PROVIDERS[name] for name in providers.names]
    session = onnxruntime.InferenceSession(
        file,
        _options(nodes, threads),
        providers=wanted,
        provider_options=_provider_options(providers),
    )
    if session.get_providers()[0] != wanted[0]:
        _LOG.warning("provider_failed", asked=wanted[0], used=session.get_providers()[0])
    return session


def last_run(session: "InferenceSession") -> Any:  # noqa: ANN401 - onnxruntime is not typed
    """Return the options of a job's last step, after which spare memory is given back.

    A session may have been made on the CPU although a GPU was asked for; naming memory that it
    has not would make the run fail.
    """
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.RunOptions()
    arenas = ["cpu:0", *("gpu:0" for name in session.get_providers() if name != PROVIDERS[CPU])]
    options.add_run_config_entry(_SHRINK, ";".join(dict.fromkeys(arenas)))
    return options


def _options(nodes: int, threads: int) -> "SessionOptions":
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry(*_ONLY_ONNX)
    options.enable_mem_pattern = False  # it takes a third more memory, and no less time
    options.enable_mem_reuse = nodes < _MANY_NODES
    return options


def _reasons(asked: Sequence[str]) -> dict[str, str | None]:
    if set(asked) <= {CPU}:
        return {}
    import onnxruntime  # noqa: PLC0415

    available = set(onnxruntime.get_available_providers())
    return {name: _why_not(name, available) for name in dict.fromkeys(asked) if name != CPU}


def _why_not(name: str, available: set[str]) -> str | None:
    provider = PROVIDERS[name]
    if provider not in available:
        return "not in this onnxruntime"
    session = make_session(_PROBE, 1, 1, Providers((name, CPU)))
    return None if session.get_providers()[0] == provider else "it does not start here"


def _why_not_float16(name: str) -> str | None:
    provider = PROVIDERS[name]
    if name not in _FLOAT16_OPTIONS:
        return f"{provider} computes in float32"
    session = make_session(_PROBE, 1, 1, Providers((name, CPU), precision="float16"))
    if session.get_providers()[0] == provider:
        return None
    return f"{provider} does not start with it and computes in float32"


def _provider_options(providers: Providers) -> list[dict[str, str]]:
    if providers.precision == "float32":
        return [{} for _ in providers.names]
    return [_FLOAT16_OPTIONS.get(name, {}) for name in providers.names]
