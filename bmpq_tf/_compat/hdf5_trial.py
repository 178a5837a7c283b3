"""A program that reads all that lies in the HDF5 file of a Keras model, and prints what is wrong.

In a process of its own, since HDF5 may end it on a damaged file.
"""

import io
import sys
import zipfile

import h5py

_WEIGHTS = "model.weights.h5"


def _visit(name: str, thing) -> None:
    for attribute in thing.attrs:
        thing.attrs[attribute]
    if isinstance(thing, h5py.Dataset):
        thing[()]


def _read(path: str) -> None:
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            # Weights may also lie in an .npz, which is NumPy's to read.
            if _WEIGHTS not in archive.namelist():
                return
            source = io.BytesIO(archive.read(_WEIGHTS))
    else:
        source = path
    with h5py.File(source, "r") as file:
        _visit("/", file)
        file.visititems(_visit)


if __name__ == "__main__":
    try:
        _read(sys.argv[1])
    except Exception as error:
        lines = str(error).strip().splitlines()
        print((lines[0] if lines else type(error).__name__).rstrip(".") + ".")
