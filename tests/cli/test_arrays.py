"""Arrays that users bring."""

import numpy as np
import pytest

from bmpq_tf.cli.arrays import load_arrays

pytestmark = pytest.mark.quick


def test_arrays_of_ones_own_are_checked(tmp_path):
    images, labels = np.zeros((3, 2, 2, 1), "float32"), np.arange(3)
    np.savez(tmp_path / "good.npz", images=images, labels=labels)
    for ours, theirs in zip(load_arrays(tmp_path / "good.npz"), (images, labels), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.savez(tmp_path / "column.npz", images=images, labels=labels[:, None])
    np.testing.assert_array_equal(load_arrays(tmp_path / "column.npz")[1], labels)
    np.savez(tmp_path / "input.npz", image=images + 1, images=images, labels=labels)
    np.testing.assert_array_equal(load_arrays(tmp_path / "input.npz", name="image")[0], images + 1)
    np.savez(tmp_path / "nan.npz", images=np.full_like(images, np.nan), labels=labels)
    np.savez(tmp_path / "named.npz", pictures=images)
    np.savez(tmp_path / "few.npz", images=images, labels=labels[:2])
    np.savez(tmp_path / "soft.npz", images=images, labels=np.eye(3))
    with open(tmp_path / "single.npz", "wb") as file:
        np.save(file, images)
    for name, error, message in (
        ("single", ValueError, "one array without a name"),
        ("none", FileNotFoundError, "There is no such file. Received: --data="),
        ("named", ValueError, "needs `images` and `labels`. .* with pictures"),
        ("few", ValueError, r"one integer label. .* labels \(2,\) int64"),
        ("soft", ValueError, r"one integer label. .* labels \(3, 3\) float64. .*y.argmax\(-1\)"),
        ("nan", ValueError, "NaN or infinite values. Received: --data="),
    ):
        with pytest.raises(error, match=message):
            load_arrays(tmp_path / f"{name}.npz")
