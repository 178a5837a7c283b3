"""Spoken digits as the features that keyword spotting takes.

From `spoken_digits.npz`, the 3,000 recordings of the Free Spoken Digit Dataset (6 speakers, 8 kHz):

    samples    int16, all recordings one after another
    offsets    recording i is samples[offsets[i]:offsets[i + 1]]
    labels     0 to 9
    takes      0 to 49; the data set's own split: takes 0 to 4 are the test set

The features are those of MLPerf Tiny's keyword spotting (github.com/mlcommons/tiny,
keyword_spotting/get_dataset.py, "mfcc"): one second, as loud as it goes, in windows of 30 ms every
20 ms; 40 mel bands from 20 to 4,000 Hz; their first 10 cepstral coefficients. It has 16 kHz, which
is the same bands and the same resolution.
"""

import itertools
import pathlib

import numpy as np
import tensorflow as tf

from bmpq_research.datasets.image_dataset import DatasetNotFoundError, ImageDataset

FILE = "spoken_digits.npz"
RATE = 8000
STEPS, COEFFICIENTS = 49, 10
_WINDOW, _STRIDE = 240, 160
_MEL_BANDS, _LOWEST_HZ, _HIGHEST_HZ = 40, 20.0, 4000.0
_VECTOR_FRAMES, _VECTOR_BANDS, _VECTOR_WINDOW = 5, 128, 512
_TEST_TAKES = 5
_ARRAYS = ("samples", "offsets", "labels", "takes")


def spoken_digits(name: str, data_dir: str | None, download: bool = False) -> ImageDataset:
    """Loads the recordings and computes their features once, which then stay in memory.

    Float32 features `(n, 49, 10, 1)`: steps of 20 ms and coefficients. Each coefficient is to be
    normalised by itself. Training examples are in a fixed random order.

    Args:
        name: that the data set is to have.
        data_dir: the folder that holds `spoken_digits.npz`, or the one above it.
        download: not used.

    Raises:
        DatasetNotFoundError: the file is not there; the message says where it was looked for.
        ValueError: the file lacks an array, or they do not fit together.
    """
    path = _path(data_dir)
    samples, offsets, labels, takes = _read(path)
    features = _features([samples[start:end] for start, end in itertools.pairwise(offsets)])
    tested = takes < _TEST_TAKES
    train = np.flatnonzero(~tested)
    # Recordings are sorted by label, and a validation split takes the last ones.
    train = train[np.random.default_rng(0).permutation(len(train))]
    labels = labels.astype(np.int64)
    return ImageDataset(
        name,
        (features[train], labels[train]),
        (features[tested], labels[tested]),
        10,
        augment=False,
        moments_over=(0, 1),
    )


def mfcc(audio: tf.Tensor) -> tf.Tensor:
    """Returns the mel-frequency cepstral coefficients of recordings of one second.

    Args:
        audio: float32 `(n, 8000)`, at 8 kHz, from -1 to 1.

    Returns:
        Float32 `(n, 49, 10)`: steps of 20 ms, coefficients.
    """
    spectrum = tf.abs(tf.signal.stft(audio, _WINDOW, _STRIDE))
    bands = tf.signal.linear_to_mel_weight_matrix(
        _MEL_BANDS, spectrum.shape[-1], RATE, _LOWEST_HZ, _HIGHEST_HZ
    )
    log_mel = tf.math.log(tf.tensordot(spectrum, bands, 1) + 1e-6)
    return tf.signal.mfccs_from_log_mel_spectrograms(log_mel)[..., :COEFFICIENTS]


def _features(recordings: list[np.ndarray]) -> np.ndarray:
    """Pads or cuts recordings to a second, and returns their features."""
    audio = np.zeros((len(recordings), RATE), np.int16)
    for row, recording in zip(audio, recordings, strict=True):
        row[: len(recording)] = recording[:RATE]

    def features(seconds):
        seconds = tf.cast(seconds, tf.float32)
        loudest = tf.reduce_max(tf.abs(seconds), axis=1, keepdims=True)
        return mfcc(seconds / tf.maximum(loudest, 1.0))

    batches = tf.data.Dataset.from_tensor_slices(audio).batch(100).map(features, 2)
    return np.concatenate(list(batches.as_numpy_iterator()))[..., None]


def _path(data_dir: str | None) -> pathlib.Path:
    given = pathlib.Path(data_dir or ".")
    looked = [given / FILE, given / "spoken_digits" / FILE]
    for path in looked:
        if path.is_file():
            return path
    raise DatasetNotFoundError(
        f"The spoken digits were not found. Looked for '{looked[0]}' and '{looked[1]}'. Give "
        f"--data_dir the folder that holds {FILE}."
    )


def _read(path: pathlib.Path) -> list[np.ndarray]:
    with np.load(path) as file:
        lacking = [name for name in _ARRAYS if name not in file.files]
        if lacking:
            raise ValueError(
                f"'{path}' is not the spoken digits. Received: arrays {', '.join(file.files)}; it "
                f"lacks {', '.join(lacking)}."
            )
        samples, offsets, labels, takes = (file[name] for name in _ARRAYS)
    count = len(labels)
    if (len(takes), len(offsets)) != (count, count + 1) or offsets[-1] != len(samples):
        raise ValueError(
            f"'{path}' is not whole. Received: {count:,} labels, {len(takes):,} takes, "
            f"{len(offsets):,} offsets that end at {offsets[-1]:,}, and {len(samples):,} samples."
        )
    return [samples, offsets, labels, takes]


def mel_vectors(data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns vectors as MLPerf Tiny's autoencoder takes them, which stand in for ToyADMOS's: five
    frames of 128 mel bands, in decibels (github.com/mlcommons/tiny, anomaly_detection/common.py).

    Windows of 64 ms every 32 ms, as there, but of speech at 8 kHz.

    Args:
        data_dir: as `spoken_digits` takes it.

    Returns:
        Float32 `(n, 640)` for training and for the test, by the data set's own split, with the mean
        and the deviation of the training values taken out.

    Raises:
        DatasetNotFoundError, ValueError: as `spoken_digits`.
    """
    samples, offsets, _, takes = _read(_path(data_dir))
    bands = tf.signal.linear_to_mel_weight_matrix(
        _VECTOR_BANDS, _VECTOR_WINDOW + 1, RATE, _LOWEST_HZ, _HIGHEST_HZ
    )
    found: dict[bool, list[np.ndarray]] = {True: [], False: []}
    for (start, end), take in zip(itertools.pairwise(offsets), takes, strict=True):
        audio = samples[start:end].astype(np.float32)
        audio /= max(1.0, np.abs(audio).max())
        spectrum = tf.signal.stft(audio, _VECTOR_WINDOW, _VECTOR_WINDOW // 2, 2 * _VECTOR_WINDOW)
        power = np.asarray(tf.tensordot(tf.abs(spectrum) ** 2, bands, 1))
        frames = 10.0 * np.log10(power + 1e-6)
        found[bool(take < _TEST_TAKES)] += [
            frames[first : first + _VECTOR_FRAMES].reshape(-1)
            for first in range(len(frames) - _VECTOR_FRAMES + 1)
        ]
    train, test = np.stack(found[False]), np.stack(found[True])
    mean, deviation = train.mean(), train.std()
    return (train - mean) / deviation, (test - mean) / deviation
