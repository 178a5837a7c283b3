"""What TensorBoard shows of a run: widths and sensitivities by kernel, their picture, the table.

Steps are epochs counted from 0, as in Keras's own callback, so that a run that goes on after a
restart goes on in the curves.
"""

import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import keras
import tensorflow as tf

from bmpq_tf.model.allocation_plot import allocation_pixels
from bmpq_tf.model.kernels import KernelState, allocation_history
from bmpq_tf.model.summary import as_markdown, kernel_table

# The run's name in TensorBoard, beside Keras's `train` and `validation`; of a part with its own.
RUN = "bmpq"
WIDTH, SENSITIVITY = "bmpq_width", "bmpq_sensitivity"
PICTURES = ("bmpq/widths_over_epochs", "bmpq/sensitivities_over_epochs")
TABLE = "bmpq/kernels"
INSTALL = "pip install 'bmpq_tf[tensorboard]'"


def checked_folder(log_dir: "str | os.PathLike | None") -> str | None:
    """Returns `log_dir` as a string.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
        ValueError: it is no path.
    """
    if log_dir is None:
        return None
    if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
        raise ValueError(
            f"log_dir is the folder that TensorBoard reads. Received: log_dir={log_dir!r}."
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise ModuleNotFoundError(
            f"log_dir needs tensorboard, which is not installed. Install it: {INSTALL}.",
            name="tensorboard",
        )
    return str(os.fspath(log_dir))


def has_pictures() -> bool:
    """Whether matplotlib is there, which draws them."""
    return importlib.util.find_spec("matplotlib") is not None


class EventFiles:
    """Writes a run's event files below a folder.

    Args:
        log_dir: the folder that TensorBoard reads.
        run: its name there.

    Raises:
        OSError: it cannot be written to.
    """

    def __init__(self, log_dir: str, run: str = RUN):
        self._log_dir, self._is_broken = log_dir, False
        try:
            self._writer = tf.summary.create_file_writer(os.path.join(log_dir, run))
        except tf.errors.OpError as error:
            raise OSError(
                f"log_dir cannot be written to. Received: log_dir='{log_dir}'. {error.message}"
            ) from error

    def epoch_ended(self, epoch: int, states: Sequence[KernelState]) -> None:
        """Writes the width of each quantized kernel."""
        with self._at(epoch):
            for state in states:
                if state.quantizer:
                    tf.summary.scalar(f"{WIDTH}/{state.kernel.path}", state.bits)

    def decided(self, epoch: int, model: keras.Model) -> None:
        """Writes what a decision before an epoch knew and made: sensitivities, table, picture."""
        history = allocation_history(model)
        with self._at(epoch):
            for path, told in history[-1]["sensitivity"].items():
                if told is not None:
                    tf.summary.scalar(f"{SENSITIVITY}/{path}", told)
            tf.summary.text(TABLE, as_markdown(kernel_table(model)))
            if has_pictures():
                for name, pixels in zip(PICTURES, allocation_pixels(history), strict=True):
                    tf.summary.image(name, pixels[None])

    def close(self) -> None:
        if not self._is_broken:
            self._writer.close()

    @contextmanager
    def _at(self, epoch: int) -> Iterator[None]:
        try:
            # Keras's callback lets TensorFlow record at some steps only.
            with self._writer.as_default(step=epoch), tf.summary.record_if(not self._is_broken):
                yield
            if not self._is_broken:
                self._writer.flush()
        except tf.errors.OpError as error:
            # A disk that is full should not cost the training.
            self._is_broken = True
            warnings.warn(
                f"TensorBoard gets nothing more of this run: '{self._log_dir}' cannot be written "
                f"to. {error.message}",
                stacklevel=2,
            )
