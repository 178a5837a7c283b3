"""Operators without an int8 kernel that answers rightly, written as others that have one.

The float file computes the same afterwards, so that ranges are measured on what the integer file
will hold.
"""

import numpy as np

from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer import lookup_tables, unit_lengths
from bmpq_tf.export.tflite import editing, flatbuffer

_BUILTIN = schema.BuiltinOperator


def rewrite(model, alone: frozenset[int] = lookup_tables.ALONE, bits: int = 8) -> None:
    """Rewrites a parsed float model in place, where no lookup table will do.

    A square is a product, the negative of a tensor its product with -1 (the int8 kernel of `NEG`
    gives -128 for -128), and a quotient the product with a reciprocal, which is a table (that of
    `DIV` gives -128 for some quotients near zero). What divides vectors by their length is one
    operator.

    Args:
        model: the parsed float model.
        alone: as `lookup_tables.folded` takes them.
        bits: the width of activations; at 16 there are no tables, and `DIV` is right.
    """
    subgraph = model.subgraphs[0]
    if bits == 8:
        unit_lengths.rewrite(model)
    kept = lookup_tables.folded(model, alone)[0] if bits == 8 else model
    for operator in list(kept.subgraphs[0].operators):
        builtin = flatbuffer.builtin_of(model, operator) if _is_own(model, operator) else None
        if builtin == _BUILTIN.SQUARE:
            _become_product(model, operator, [operator.inputs[0]] * 2)
        elif builtin == _BUILTIN.NEG and _is_float(subgraph, operator):
            name = flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]])
            _become_product(
                model, operator, [operator.inputs[0], _number(model, f"{name}_minus_one", -1.0)]
            )
        elif builtin == _BUILTIN.DIV and bits == 8 and _is_float(subgraph, operator):
            _become_product(
                model, operator, [operator.inputs[0], _reciprocal(model, subgraph, operator)]
            )


def _is_own(model, operator) -> bool:
    return operator.opcodeIndex < len(model.operatorCodes)


def _is_float(subgraph, operator) -> bool:
    return subgraph.tensors[operator.outputs[0]].type == flatbuffer.FLOAT32


def _become_product(model, operator, operands: list[int]) -> None:
    activation = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
    options = ("Mul", {"fusedActivationFunction": activation})
    editing.become(model, operator, _BUILTIN.MUL, operands, options)


def _reciprocal(model, subgraph, operator) -> int:
    """Adds one divided by the divisor in front of an operator."""
    divisor = subgraph.tensors[operator.inputs[1]]
    name = f"{flatbuffer.tensor_name(subgraph.tensors[operator.outputs[0]])}_reciprocal"
    result = editing.add_tensor(
        model,
        subgraph,
        name,
        divisor.shape if divisor.shape is not None else (),
        flatbuffer.FLOAT32,
        signature=divisor.shapeSignature,
    )
    one = _number(model, f"{name}_one", 1.0)
    division = editing.new_operator(
        model, _BUILTIN.DIV, [one, operator.inputs[1]], [result], ("Div", {})
    )
    subgraph.operators.insert(subgraph.operators.index(operator), division)
    return result


def _number(model, name: str, value: float) -> int:
    return editing.add_tensor(
        model, model.subgraphs[0], name, (), flatbuffer.FLOAT32, np.array(value, np.float32)
    )
