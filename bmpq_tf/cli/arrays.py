"""Arrays of a user's own: images and labels, or a model's inputs."""

import contextlib
import os
from collections.abc import Iterator, Mapping

import keras
import numpy as np

from bmpq_tf.export.errors import first_line

# Of NumPy's dtypes: numbers and truth values.
_NUMBERS = "biuf"
_HINT = "Write it anew with np.savez(path, images=x, labels=y)."


def load_arrays(
    path: str | os.PathLike | None, flag: str = "--data", name: str = "images"
) -> tuple[np.ndarray, np.ndarray]:
    """Reads `images`, as the model takes them, and `labels`, integers `(n,)` or `(n, 1)`.

    Args:
        path: the .npz file.
        flag: what named it, for the messages.
        name: another name of the images, which comes first.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, has no such arrays, not as many labels as images, or images
            that are not finite.
    """
    if not path or not os.path.isfile(path):
        raise FileNotFoundError(
            f"There is no such file. Received: {flag}={path}. Give an .npz file with `images` and "
            "integer `labels`."
        )
    with _opened(path, flag) as arrays:
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError(
                f"The file holds one array without a name. Received: {flag}={path}. {_HINT}"
            )
        name = name if name in arrays else "images"
        if not {name, "labels"} <= set(arrays):
            raise ValueError(
                f"The file needs `images` and `labels`. Received: {flag}={path} with "
                f"{', '.join(sorted(arrays)) or 'nothing'}. {_HINT}"
            )
        images, labels = (_array(arrays, one, path, flag) for one in (name, "labels"))
    if labels.shape == (len(images), 1):
        labels = labels[:, 0]  # As `keras.datasets` has them.
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"Each image needs one integer label. Received: {flag}={path} with images "
            f"{images.shape}, labels {labels.shape} {labels.dtype}. "
            + ("If they are one-hot, save labels=y.argmax(-1)." if labels.ndim > 1 else _HINT)
        )
    if not len(images):
        raise ValueError(f"There are no images. Received: {flag}={path}. Give some.")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise ValueError(
            f"The images hold NaN or infinite values. Received: {flag}={path}. Clean them first."
        )
    return images, labels


def has_labels(path: str | os.PathLike, flag: str) -> bool:
    """Whether a file that can be read is an .npz with an array `labels`."""
    with _opened(path, flag) as loaded:
        return not isinstance(loaded, np.ndarray) and "labels" in loaded


def load_inputs(path: str, model: keras.Model, flag: str) -> list[np.ndarray]:
    """Reads a model's inputs, in the model's order.

    An .npy file, or an .npz with one array for each input, by its name, or `images`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or arrays are missing.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"No such file of inputs. Received: {flag}={path}. Give an .npy or .npz file."
        )
    kinds = _NUMBERS + "U" * any(tensor.dtype == "string" for tensor in model.inputs)
    with _opened(path, flag) as loaded:
        if isinstance(loaded, np.ndarray):
            return [_checked(loaded, "its array", path, flag, kinds)]
        names = [tensor.name for tensor in model.inputs]
        # As own_model.py and tune.py read them.
        if len(names) == 1 and "images" in loaded and names[0] not in loaded:
            return [_array(loaded, "images", path, flag, kinds)]
        missing = [name for name in names if name not in loaded]
        if missing:
            raise ValueError(
                f"Arrays of these inputs are missing: {', '.join(missing)}. Received: "
                f"{flag}={path} with {', '.join(loaded) or 'none'}."
            )
        return [_array(loaded, name, path, flag, kinds) for name in names]


@contextlib.contextmanager
def _opened(path: str | os.PathLike, flag: str) -> Iterator:
    """Yields what `np.load` gives, which never unpickles here."""
    with open(path, "rb") as file:
        try:
            loaded = np.load(file, allow_pickle=False)
        # zipfile, zlib and NumPy have a class of error for each way in which a file is damaged.
        except Exception as error:
            raise _unreadable("The file", error, path, flag) from error
        yield loaded


def _array(
    arrays: Mapping, name: str, path: str | os.PathLike, flag: str, kinds: str = _NUMBERS
) -> np.ndarray:
    try:
        array = arrays[name]
    except Exception as error:
        raise _unreadable(f"Array `{name}`", error, path, flag) from error
    return _checked(array, f"`{name}`", path, flag, kinds)


def _checked(array, name: str, path: str | os.PathLike, flag: str, kinds: str) -> np.ndarray:
    # Where an entry is no array, NumPy gives its bytes.
    if not isinstance(array, np.ndarray) or array.dtype.kind not in kinds or not array.ndim:
        what = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else "no array"
        raise ValueError(
            f"An array of numbers with an axis of examples is needed. Received: {flag}={path}, "
            f"where {name} is {what}. {_HINT}"
        )
    return array


def _unreadable(what: str, error: Exception, path: str | os.PathLike, flag: str) -> ValueError:
    size, why = os.path.getsize(path), first_line(error)
    # NumPy tells how to load them all the same, which is not for files of others.
    if "pickle" in why:
        why = "it holds Python objects, which could run code and are never loaded."
    return ValueError(
        f"{what} cannot be read: {why} Received: {flag}={path}, {size:,} bytes. {_HINT}"
    )
