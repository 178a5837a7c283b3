"""Whether a refusal helps: it names a layer, a kernel or an argument, and says what to do."""

import re

import keras

import bmpq_tf
from bmpq_tf.model import keras_graph

# What the library raises on purpose; anything else comes from below.
_CLASSES = (
    bmpq_tf.AllocationError,
    bmpq_tf.ConversionError,
    bmpq_tf.ExportError,
    bmpq_tf.InfeasibleBudgetError,
    ValueError,
    TypeError,
)
_LONGEST = 2500
# Verbs by which the library's messages say what to do.
_WAY_OUT = re.compile(
    r"\b(Give|Take|Name|Replace|Leave|Train|Raise|Use|Make|Say|Call|Build|Set|Export|Save|Allow|Try|"
    r"Drop|Add|Write|Fix|Freeze|Exclude|Lower|Choose|Feed)\b|\b(loosen|allow)\b"
)
_ARGUMENT = re.compile(r"\b[a-z_]+=")
# MLIR and Python have shown themselves.
_DEPTHS = re.compile(r"loc\(|\bmlir\b|Traceback|\bat 0x[0-9a-f]+|std::|tensor<\?x")


def is_helpful(error: Exception, model: keras.Model) -> bool:
    """Whether an error is a refusal in words that help."""
    text = str(error)
    names = [layer.name for layer in keras_graph.sublayers(model)]
    named = any(name in text for name in names) or _ARGUMENT.search(text) is not None
    return (
        type(error) in _CLASSES
        and named
        and _WAY_OUT.search(text) is not None
        and _DEPTHS.search(text) is None
        and len(text) <= _LONGEST
    )
