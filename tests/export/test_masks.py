"""Masks of attention in integer files: constants that no grid holds beside scores."""

import numpy as np

from bmpq_research import tflite_builder
from bmpq_tf._compat.litert import schema
from bmpq_tf.export.integer import masks
from bmpq_tf.export.tflite import flatbuffer
from bmpq_tf.export.tflite.interpreter import TFLiteModel

BUILTIN = schema.BuiltinOperator


def test_masks_are_limited_to_what_a_grid_holds():
    file = tflite_builder.Builder()
    scores, added, weights = (
        file.tensor(name, (1, 4), flatbuffer.FLOAT32) for name in ("scores", "added", "weights")
    )
    mask = file.tensor("mask", (1, 4), flatbuffer.FLOAT32, np.float32([[0, 0, -1e9, -1e9]]))
    file.operator(BUILTIN.ADD, [scores, mask], [added], ("Add", {}))
    file.operator(BUILTIN.SOFTMAX, [added], [weights], ("Softmax", {"beta": 1.0}))
    model = flatbuffer.parse(file.content([scores], [weights]))
    before = TFLiteModel(flatbuffer.serialised(model))([np.float32([[-3, 5, 4, 5]])])[0]
    ranges = masks.limited(model, {"scores": (-3.0, 5.0), "added": (-1e9, 5.0)})
    assert ranges["added"] == (-15.0, 5.0)
    after = TFLiteModel(flatbuffer.serialised(model))([np.float32([[-3, 5, 4, 5]])])[0]
    np.testing.assert_allclose(after, before, atol=1e-4)


def test_a_mask_that_several_scores_read_is_limited_for_all_of_them():
    file = tflite_builder.Builder()
    names = ("kept", "mask", "first", "second", "one", "two", "of one", "of two")
    tensors = {name: file.tensor(name, (1, 4), flatbuffer.FLOAT32) for name in names}
    huge = file.tensor("huge", (), flatbuffer.FLOAT32, np.float32(-1e9))
    file.operator(BUILTIN.MUL, [tensors["kept"], huge], [tensors["mask"]], ("Mul", {}))
    for scores, added, weights in (("first", "one", "of one"), ("second", "two", "of two")):
        read = [tensors[scores], tensors["mask"]]
        file.operator(BUILTIN.ADD, read, [tensors[added]], ("Add", {}))
        given = ([tensors[added]], [tensors[weights]])
        file.operator(BUILTIN.SOFTMAX, *given, ("Softmax", {"beta": 1.0}))
    ends = [tensors[name] for name in ("kept", "first", "second")]
    model = flatbuffer.parse(file.content(ends, [tensors["of one"], tensors["of two"]]))
    data = [np.float32([one]) for one in ([0, 0, 1, 1], [-3, 5, 4, 5], [-30, 50, 40, 50])]
    before = TFLiteModel(flatbuffer.serialised(model))(data)
    measured = {"first": (-3.0, 5.0), "second": (-30.0, 50.0)}
    ranges = masks.limited(model, {**measured, "one": (-1e9, 5.0), "two": (-1e9, 50.0)})
    assert (ranges["one"], ranges["two"]) == ((-15.0, 5.0), (-42.0, 50.0))
    after = TFLiteModel(flatbuffer.serialised(model))(data)
    np.testing.assert_allclose(after, before, atol=1e-4)
