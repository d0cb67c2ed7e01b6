"""The operators that a forward graph may have.

Those with a gradient rule, those that are written out as others, and those that carry no gradient
but do no harm: they compare, look at shapes, or make constants. What is left out either holds
graphs of its own (If, Loop, Scan), gives shapes that depend on values (NonZero, Unique, Compress),
draws at random, or belongs to texts, sequences and quantized models.
"""

_ELEMENTWISE = """
Abs Acos Acosh Add Asin Asinh Atan Atanh Cast CastLike Ceil Celu Clip Cos Cosh Div Dropout Elu Erf
Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Max Mean Min Mish Mod Mul Neg PRelu
Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Sub Sum Swish
Tan Tanh ThresholdedRelu Where
"""
_LAYERS = """
Attention AveragePool BatchNormalization Conv ConvTranspose Einsum GRU Gemm GlobalAveragePool
GlobalLpPool GlobalMaxPool GroupNormalization InstanceNormalization LRN LSTM LayerNormalization
LogSoftmax LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization
NegativeLogLikelihoodLoss RMSNormalization RNN RotaryEmbedding Softmax
SoftmaxCrossEntropyLoss
"""
_SHAPING = """
Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Flatten Gather GatherElements GatherND
OneHot Pad Range Reshape Resize ScatterElements ScatterND Shape Size Slice SpaceToDepth Split
Squeeze Tile TopK Transpose Trilu Unsqueeze CenterCropPad
"""
_REDUCTIONS = """
ArgMax ArgMin CumSum ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare
"""
_COMPARISONS = """
And BitShift Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor
"""
#: Exporters write a list of tensors as these; preparation turns them into Split.
_LISTS = "SequenceAt SplitToSequence"

FORWARD_OPERATORS = frozenset(
    f"{_ELEMENTWISE} {_LAYERS} {_SHAPING} {_REDUCTIONS} {_COMPARISONS} {_LISTS}".split()
)
