"""Arrays of a user's own: images and labels, or a model's inputs."""

import os

import keras
import numpy as np


def load_arrays(
    path: str | os.PathLike | None, flag: str = "--data"
) -> tuple[np.ndarray, np.ndarray]:
    """Reads `images`, as the model takes them, and `labels`, integers `(n,)`.

    Args:
        path: the .npz file.
        flag: what named it, for the messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no such arrays, or not as many labels as images.
    """
    if not path or not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no such file. Received: {flag}={path}. Give an .npz file with `images` and "
            "integer `labels`."
        )
    arrays = np.load(path, allow_pickle=False)
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise ValueError(
            f"The file holds one array without a name. Received: {flag}={path}. Write it with "
            "np.savez(path, images=, labels=)."
        )
    with arrays:
        if not {"images", "labels"} <= set(arrays):
            raise ValueError(
                f"The file needs `images` and `labels`. Received: {flag}={path} with "
                f"{', '.join(sorted(arrays))}."
            )
        images, labels = arrays["images"], arrays["labels"]
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Each image needs one integer label. Received: {flag}={path} with images "
            f"{images.shape}, labels {labels.shape} {labels.dtype}."
        )
    return images, labels


def load_inputs(path: str, model: keras.Model, flag: str) -> list[np.ndarray]:
    """Reads a model's inputs, in the model's order.

    An .npy file, or an .npz with one array for each input, by its name, or `images`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: arrays are missing.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"No such file of inputs. Received: {flag}={path}.")
    loaded = np.load(path, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return [loaded]
    with loaded:
        names = [tensor.name for tensor in model.inputs]
        # As own_model.py and tune.py read them.
        if len(names) == 1 and "images" in loaded and names[0] not in loaded:
            return [loaded["images"]]
        missing = [name for name in names if name not in loaded]
        if missing:
            raise ValueError(
                f"Arrays of these inputs are missing: {', '.join(missing)}. Received: "
                f"{flag}={path} with {', '.join(loaded) or 'none'}."
            )
        return [loaded[name] for name in names]
