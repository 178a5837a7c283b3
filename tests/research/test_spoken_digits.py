"""Recordings become features of one second, and their split is the data set's own."""

import numpy as np
import pytest

from bmpq_research.datasets import DatasetNotFoundError, load_dataset
from bmpq_research.datasets.spoken_digits import RATE, mel_vectors, mfcc


def recordings(count: int = 20) -> list[np.ndarray]:
    """Tones, higher by the recording: some shorter than a second, one longer."""
    lengths = [RATE // 2 + 100 * number for number in range(count - 1)] + [2 * RATE]
    return [
        (1000 * np.sin(2 * np.pi * (200 + 100 * number) * np.arange(length) / RATE)).astype("int16")
        for number, length in enumerate(lengths)
    ]


def write(folder, parts: list[np.ndarray], **arrays) -> str:
    count = len(parts)
    whole = {
        "samples": np.concatenate(parts),
        "offsets": np.cumsum([0, *map(len, parts)]),
        "labels": np.arange(count, dtype="int8") % 10,
        "speakers": np.zeros(count, "int8"),
        "takes": np.arange(count, dtype="int8"),
    }
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / "spoken_digits.npz",
        **{name: value for name, value in {**whole, **arrays}.items() if value is not None},
    )
    return str(folder)


def test_the_takes_split_them_and_training_ones_are_shuffled(tmp_path):
    folder = write(tmp_path / "spoken_digits", recordings())
    dataset = load_dataset("spoken_digits", folder)
    assert dataset.train[0].shape == (15, 49, 10, 1)
    assert dataset.train[0].dtype == np.float32
    assert dataset.test[1].tolist() == [0, 1, 2, 3, 4]
    assert sorted(dataset.train[1]) == [0, 1, 2, 3, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    assert dataset.train[1].tolist() != [*range(5, 10), *range(10)]
    assert (dataset.num_classes, dataset.augment) == (10, False)
    again = load_dataset("spoken_digits", str(tmp_path))
    np.testing.assert_array_equal(again.train[0], dataset.train[0])


def test_features_are_of_one_second_whatever_the_loudness(tmp_path):
    parts = recordings()
    one = load_dataset("spoken_digits", write(tmp_path / "one", parts)).test[0]
    # The tones are those that mfcc is told of, padded with silence behind.
    audio = np.zeros((1, RATE), np.float32)
    audio[0, : len(parts[2])] = parts[2] / np.abs(parts[2]).max()
    np.testing.assert_allclose(one[2, ..., 0], mfcc(audio)[0], rtol=1e-3, atol=1e-3)
    assert np.ptp(one[2, -10:], axis=0).max() < 1e-3, "silence at the end"
    longer = [np.concatenate([part, np.zeros(RATE - len(part), "int16")]) for part in parts[:5]]
    longer = [
        np.concatenate([2 * part, np.full(RATE, 30_000, "int16")]) for part in longer
    ] + parts[5:]
    two = load_dataset("spoken_digits", write(tmp_path / "two", longer)).test[0]
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


def test_each_step_is_30_ms_every_20_ms():
    quiet = 0.01 * np.random.default_rng(0).standard_normal((1, RATE)).astype("float32")
    # Step s hears the 240 samples from 160 s on: 3680 to 3919 the 23rd, 3840 to 4079 the 24th.
    for start, heard in ((3870, [23, 24]), (3930, [24])):
        loud = quiet.copy()
        loud[0, start : start + 20] = 1.0
        changed = np.abs(mfcc(loud) - mfcc(quiet)).max(axis=(0, 2))
        assert np.flatnonzero(changed > 0.1).tolist() == heard


def test_each_coefficient_is_normalised_by_itself(tmp_path):
    dataset = load_dataset("spoken_digits", write(tmp_path, recordings()))
    mean, std = dataset.moments()
    assert mean.shape == std.shape == (10, 1)
    np.testing.assert_allclose(mean, dataset.train[0].mean((0, 1)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(std, dataset.train[0].std((0, 1)), rtol=1e-3)


def test_a_file_that_is_missing_or_not_whole_says_so(tmp_path):
    with pytest.raises(
        DatasetNotFoundError,
        match=r"Looked for '.*nowhere.spoken_digits.npz' and '.*nowhere.spoken_digits.spoken_d.*"
        r"Give --data_dir",
    ):
        load_dataset("spoken_digits", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"lacks takes"):
        load_dataset("spoken_digits", write(tmp_path, recordings(), takes=None))
    with pytest.raises(ValueError, match=r"20 labels, 19 takes, 21 offsets that end at"):
        load_dataset("spoken_digits", write(tmp_path, recordings(), takes=np.arange(19)))


def test_the_real_ones_are_3000_recordings(data_dir):
    dataset = load_dataset("spoken_digits", str(data_dir))
    assert dataset.train[0].shape == (2700, 49, 10, 1)
    assert np.bincount(dataset.test[1]).tolist() == [30] * 10
    assert np.bincount(dataset.train[1]).tolist() == [270] * 10


def test_vectors_are_five_frames_and_those_of_the_test_come_from_its_takes(tmp_path):
    parts = recordings()
    train, test = mel_vectors(write(tmp_path / "spoken_digits", parts))
    # A frame every 256 samples, from windows of 512.
    counts = [max(0, (len(part) - 512) // 256 + 1 - 4) for part in parts]
    assert train.shape == (sum(counts[5:]), 640)
    assert test.shape == (sum(counts[:5]), 640)
    assert train.dtype == np.float32
    np.testing.assert_allclose([train.mean(), train.std()], [0, 1], atol=1e-3)
    # The next vector is one frame on, and the loudest band is that of the tone, 200 Hz.
    np.testing.assert_array_equal(test[0, 128:], test[1, :-128])
    mels = 2595 * np.log10(1 + np.array([20.0, 200.0, 4000.0]) / 700)
    expected = 129 * (mels[1] - mels[0]) / (mels[2] - mels[0]) - 1
    assert abs(int(test[0, :128].argmax()) - expected) < 2
