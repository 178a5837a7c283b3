"""The graph in a SavedModel, whose classes TensorFlow does not document.

See `tests/compat/test_tensorflow.py`.
"""

import pathlib
from collections.abc import Mapping

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def call_instead(folder: str, functions: Mapping[str, str]) -> None:
    """Makes a SavedModel call its own functions in the place of operators.

    Args:
        folder: where the SavedModel is; changed in place.
        functions: by operator, the name of a function of one float32 tensor in the model's library.
    """
    path = pathlib.Path(folder) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in [part.graph_def for part in saved.meta_graphs]:
        _call(graph.node, functions)
        for function in graph.library.function:
            changed = _call(function.node_def, functions)
            # What reads an operator in a function names its result, which a call names otherwise.
            new = {f"{name}:y:0": f"{name}:output:0" for name in changed}
            for node in function.node_def:
                node.input[:] = [new.get(name, name) for name in node.input]
            for key, name in function.ret.items():
                function.ret[key] = new.get(name, name)
    path.write_bytes(saved.SerializeToString())


def _call(nodes, functions: Mapping[str, str]) -> list[str]:
    """Turns operators into calls and returns their names."""
    changed = [node for node in nodes if node.op in functions]
    for node in changed:
        name, node.op = functions[node.op], "PartitionedCall"
        del node.attr["T"]
        node.attr["f"].func.name = name
        for key in ("Tin", "Tout"):
            node.attr[key].list.type.append(tf.float32.as_datatype_enum)
    return [node.name for node in changed]
