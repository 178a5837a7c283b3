"""Operators with weights, and what NumPy says that they should answer."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from bmpq_tf._compat.litert import schema

_BUILTIN = schema.BuiltinOperator


@dataclasses.dataclass(frozen=True)
class Operator:
    """How to build one operator and to compute it.

    Attributes:
        name: the builtin's, and what of its use matters.
        builtin: its code.
        input_shape, weight_shape: those that exactness is judged on.
        timed_input, timed_weight: those that time is taken on.
        channel_axis: the weights' axis with one scale each.
        answer: `(inputs, weights) -> outputs`, float64.
        options: `(name, fields)` of its flatbuffer options.
        has_bias: whether it adds one value a channel.
        modes: which ways of holding its weights there are.
    """

    name: str
    builtin: int
    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    timed_input: tuple[int, ...]
    timed_weight: tuple[int, ...]
    channel_axis: int
    answer: Callable[[np.ndarray, np.ndarray], np.ndarray]
    options: tuple[str, dict]
    has_bias: bool = True
    modes: tuple[str, ...] = ("weight_only", "dynamic", "static")


def _conv2d(x, w):
    return np.einsum(
        "nhwckl,oklc->nhwo", sliding_window_view(x, w.shape[1:3], axis=(1, 2)), w, optimize=True
    )


def _depthwise(x, w):
    return np.einsum(
        "nhwckl,klc->nhwc", sliding_window_view(x, w.shape[1:3], axis=(1, 2)), w[0], optimize=True
    )


def _conv3d(x, w):
    return np.einsum(
        "ndhwcijk,ijkco->ndhwo",
        sliding_window_view(x, w.shape[:3], axis=(1, 2, 3)),
        w,
        optimize=True,
    )


def _transposed(x, w):
    """Stride 2, every window added where it falls."""
    out = np.zeros(
        (len(x), 2 * x.shape[1] - 2 + w.shape[1], 2 * x.shape[2] - 2 + w.shape[2], w.shape[0])
    )
    for row in range(w.shape[1]):
        for column in range(w.shape[2]):
            out[
                :, row : row + 2 * x.shape[1] - 1 : 2, column : column + 2 * x.shape[2] - 1 : 2
            ] += x @ w[:, row, column].T
    return out


_STRIDE_1 = {"padding": 1, "strideW": 1, "strideH": 1}
OPERATORS = (
    Operator(
        "CONV_2D 3x3",
        _BUILTIN.CONV_2D,
        (2, 6, 7, 16),
        (8, 3, 3, 16),
        (1, 32, 32, 64),
        (64, 3, 3, 64),
        0,
        _conv2d,
        ("Conv2D", _STRIDE_1),
    ),
    Operator(
        "CONV_2D 1x1",
        _BUILTIN.CONV_2D,
        (2, 6, 7, 16),
        (8, 1, 1, 16),
        (1, 32, 32, 128),
        (128, 1, 1, 128),
        0,
        _conv2d,
        ("Conv2D", _STRIDE_1),
    ),
    Operator(
        "FULLY_CONNECTED",
        _BUILTIN.FULLY_CONNECTED,
        (3, 32),
        (8, 32),
        (1, 1024),
        (1024, 1024),
        0,
        lambda x, w: x @ w.T,
        ("FullyConnected", {}),
    ),
    Operator(
        "FULLY_CONNECTED for a 1x1 convolution",
        _BUILTIN.FULLY_CONNECTED,
        (2, 6, 7, 16),
        (8, 16),
        (1, 32, 32, 128),
        (128, 128),
        0,
        lambda x, w: x @ w.T,
        ("FullyConnected", {"keepNumDims": True}),
    ),
    Operator(
        "DEPTHWISE_CONV_2D",
        _BUILTIN.DEPTHWISE_CONV_2D,
        (2, 6, 7, 16),
        (1, 3, 3, 16),
        (1, 32, 32, 128),
        (1, 3, 3, 128),
        3,
        _depthwise,
        ("DepthwiseConv2D", {**_STRIDE_1, "depthMultiplier": 1}),
    ),
    Operator(
        "TRANSPOSE_CONV",
        _BUILTIN.TRANSPOSE_CONV,
        (2, 4, 5, 16),
        (8, 3, 3, 16),
        (1, 16, 16, 64),
        (64, 3, 3, 64),
        0,
        _transposed,
        ("TransposeConv", {"padding": 1, "strideW": 2, "strideH": 2}),
    ),
    Operator(
        "CONV_3D",
        _BUILTIN.CONV_3D,
        (1, 4, 5, 5, 8),
        (2, 3, 3, 8, 4),
        (1, 8, 12, 12, 16),
        (3, 3, 3, 16, 16),
        4,
        _conv3d,
        ("Conv3D", {**_STRIDE_1, "strideD": 1}),
    ),
    Operator(
        "BATCH_MATMUL",
        _BUILTIN.BATCH_MATMUL,
        (1, 5, 16),
        (1, 16, 8),
        (1, 64, 256),
        (1, 256, 256),
        2,
        np.matmul,
        ("BatchMatMul", {}),
        has_bias=False,
    ),
    Operator(
        "GATHER",
        _BUILTIN.GATHER,
        (6,),
        (20, 16),
        (64,),
        (5000, 64),
        1,
        lambda x, w: w[x],
        ("Gather", {}),
        has_bias=False,
        modes=("weight_only",),
    ),
    Operator(
        "EMBEDDING_LOOKUP",
        _BUILTIN.EMBEDDING_LOOKUP,
        (6,),
        (20, 16),
        (64,),
        (5000, 64),
        0,
        lambda x, w: w[x],
        ("", {}),
        has_bias=False,
        modes=("weight_only", "dynamic"),
    ),
)
