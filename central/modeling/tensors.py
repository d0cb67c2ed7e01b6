"""The tensors that lie in an .onnx file: type, and bytes as their dimensions claim."""

import math
from collections.abc import Iterator, Mapping

import onnx
from onnx import TensorProto

from central.modeling.unsafe import Gate, UnsafeModelError
from updates.layout import MAX_DIMENSIONS

#: Bytes of one value of the types that a file may hold.
ITEM_BYTES: Mapping[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BOOL: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT16: 2,
    TensorProto.UINT16: 2,
    TensorProto.INT32: 4,
    TensorProto.UINT32: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
}
_TYPED_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


def tensors_of(attribute: onnx.AttributeProto) -> Iterator[TensorProto]:
    """Yield the tensors in an attribute."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors


def is_external(tensor: TensorProto) -> bool:
    """Tell whether a tensor says that its values lie in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL or tensor.external_data)


def check_tensor(tensor: TensorProto, what: str) -> None:
    """Refuse a tensor whose values are not all here, or are more than its dimensions say.

    Raises:
        UnsafeModelError: ``what`` names the tensor.
    """
    if is_external(tensor):
        message = f"{what} lies in another file; export with external_data=False"
        raise UnsafeModelError(Gate.EXTERNAL_DATA, message)
    if tensor.data_type not in ITEM_BYTES or tensor.string_data:
        message = f"{what} is of type {_type_name(tensor.data_type)}; numbers are needed"
        raise UnsafeModelError(Gate.TYPE, message)
    if len(tensor.dims) > MAX_DIMENSIONS or any(dimension < 0 for dimension in tensor.dims):
        raise UnsafeModelError(Gate.INITIALIZER, f"{what} has dimensions {list(tensor.dims)[:8]}")
    _check_count(tensor, what)


def _check_count(tensor: TensorProto, what: str) -> None:
    values = math.prod(tensor.dims)
    if tensor.HasField("raw_data"):
        claimed, got = values * ITEM_BYTES[tensor.data_type], len(tensor.raw_data)
        unit = "bytes"
    else:
        claimed, got = values, sum(len(getattr(tensor, field)) for field in _TYPED_FIELDS)
        unit = "values"
    if claimed != got:
        shown_dims = list(tensor.dims)[:8]
        message = f"{what}: dimensions {shown_dims} claim {claimed} {unit}, {got} are there"
        raise UnsafeModelError(Gate.INITIALIZER, message)


def _type_name(data_type: int) -> str:
    names: dict[int, str] = {value: name for name, value in TensorProto.DataType.items()}
    return names.get(data_type, str(data_type)).lower()
