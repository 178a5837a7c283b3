"""What TFLM, the runtime of microcontrollers, has (docs/runtime_matrix.md, "TFLM")."""

import importlib.util

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.decode import DECODE

_BUILTIN = schema.BuiltinOperator
# The builtins of the released interpreter that integer files can hold; the probe's test compares.
OPERATORS = frozenset(
    """
    ABS ADD ADD_N ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
    BROADCAST_TO CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE
    DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR
    FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH
    L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR
    LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD
    PADV2 PRELU QUANTIZE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR
    RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
    SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE
    STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    WHILE ZEROS_LIKE
    """.split()  # noqa: SIM905
)
# Of these, those with an int16 kernel in LiteRT and none in TFLM (docs/runtime_matrix.md,
# "Activations of 16 bits").
WITHOUT_INT16 = frozenset(
    """
    BATCH_TO_SPACE_ND DIV GATHER NEG REDUCE_MAX RESIZE_BILINEAR SPACE_TO_BATCH_ND SQRT
    """.split()  # noqa: SIM905
)
# Operators with a kernel for int4 weights beside int8 activations; FULLY_CONNECTED with one scale.
NATIVE_INT4 = (_BUILTIN.CONV_2D, _BUILTIN.DEPTHWISE_CONV_2D, _BUILTIN.FULLY_CONNECTED)
# Operators whose weights DECODE was found right for.
DECODED = (*NATIVE_INT4, _BUILTIN.TRANSPOSE_CONV, _BUILTIN.BATCH_MATMUL)
_METHODS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    DECODE: "Decode",
}


def is_installed() -> bool:
    """Whether the extra `micro` is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def check_installed(what: str) -> None:
    """Raises ModuleNotFoundError, naming the command, if the extra `micro` is not there.

    Args:
        what: which needs it.
    """
    if not is_installed():
        raise ModuleNotFoundError(
            f"{what} needs TFLM's interpreter and encoder, which are not installed. Install them: "
            "pip install 'bmpq_tf[micro]'.",
            name="tflite_micro",
        )


def missing(model) -> list[tuple[str, str]]:
    """Returns the names of a parsed file's operators that TFLM does not have, or not for int16, and
    of their results.
    """
    found = []
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:
            name = flatbuffer.schema_name(flatbuffer.builtin_of(model, operator))
            result = subgraph.tensors[operator.outputs[0]]
            is_wide = result.type == flatbuffer.INT16
            if name not in OPERATORS or (is_wide and name in WITHOUT_INT16):
                found.append((name, flatbuffer.tensor_name(result)))
    return found


def resolver_method(operator: str) -> str:
    """Returns the method of TFLM's `MicroMutableOpResolver` that registers an operator.

    Args:
        operator: its name in the schema, such as `"DEPTHWISE_CONV_2D"`, or `"TFLM_DECODE"`.
    """
    words = operator.split("_")
    camel = "".join(word if word[0].isdigit() else word.capitalize() for word in words)
    return f"Add{_METHODS.get(operator, camel)}"
