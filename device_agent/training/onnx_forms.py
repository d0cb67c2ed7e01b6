"""Which fields the messages of an ONNX file may have here.

Numbers and kinds are those of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
What a training graph never needs is left out, so it is refused: functions, training information,
graphs within nodes, sparse tensors, other types than tensors, segments, device configurations.
"""

from device_agent.training.protobuf import BYTES, FIXED32, FIXED64, VARINT, Form

MODEL = Form(
    "model",
    one={1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES},
    many={8: BYTES, 14: BYTES},
)
MODEL_GRAPH, MODEL_OPSETS, MODEL_METADATA = 7, 8, 14

OPSET = Form("operator set", one={1: BYTES, 2: VARINT})
OPSET_DOMAIN = 1

PROPERTY = Form("property", one={1: BYTES, 2: BYTES})
PROPERTY_KEY, PROPERTY_VALUE = 1, 2

GRAPH = Form(
    "graph",
    one={2: BYTES, 10: BYTES},
    many={1: BYTES, 5: BYTES, 11: BYTES, 12: BYTES, 13: BYTES, 16: BYTES},
)
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_INPUT, GRAPH_OUTPUT, GRAPH_VALUE = 1, 5, 11, 12, 13

NODE = Form(
    "node",
    one={3: BYTES, 4: BYTES, 6: BYTES, 7: BYTES},
    many={1: BYTES, 2: BYTES, 5: BYTES, 9: BYTES},
)
NODE_OPERATOR, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7

ATTRIBUTE = Form(
    "attribute",
    one={1: BYTES, 2: FIXED32, 3: VARINT, 4: BYTES, 5: BYTES, 13: BYTES, 20: VARINT},
    many={7: FIXED32, 8: VARINT, 9: BYTES, 10: BYTES},
)
ATTRIBUTE_TENSORS, ATTRIBUTE_TYPE = frozenset({5, 10}), 20
#: Numbers, strings, tensors, and lists of them; 0: the file does not say.
ATTRIBUTE_TYPES = frozenset({0, 1, 2, 3, 4, 6, 7, 8, 9})

TENSOR = Form(
    "tensor",
    one={2: VARINT, 8: BYTES, 9: BYTES, 12: BYTES, 14: VARINT},
    many={
        1: VARINT,
        4: FIXED32,
        5: VARINT,
        6: BYTES,
        7: VARINT,
        10: FIXED64,
        11: VARINT,
        13: BYTES,
        16: BYTES,
    },
)
TENSOR_DIMS, TENSOR_TYPE, TENSOR_FLOATS, TENSOR_NAME = 1, 2, 4, 8
TENSOR_RAW, TENSOR_FILES, TENSOR_LOCATION = 9, 13, 14

VALUE = Form("value", one={1: BYTES, 2: BYTES, 3: BYTES}, many={4: BYTES})
VALUE_NAME, VALUE_TYPE = 1, 2

TYPE = Form("type", one={1: BYTES, 6: BYTES})
TYPE_TENSOR = 1

TENSOR_KIND = Form("type of a tensor", one={1: VARINT, 2: BYTES})
KIND_ELEMENT, KIND_SHAPE = 1, 2

SHAPE = Form("shape", many={1: BYTES})

DIMENSION = Form("dimension", one={1: VARINT, 2: BYTES, 3: BYTES})
DIMENSION_SIZE, DIMENSION_NAME = 1, 2

#: Fields that hold what is not allowed, and how it is called: (name of the form, number) -> words.
FORBIDDEN = {
    ("model", 20): "training information",
    ("model", 25): "functions",
    ("graph", 15): "a sparse tensor",
    ("attribute", 6): "a graph within a node",
    ("attribute", 11): "graphs within a node",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "sparse tensors",
}
