"""Training runs as the paper's experiments need them: one configuration in, one report out."""

from bmpq_tf.experiments.training import Run, TrainConfig, train

__all__ = ["Run", "TrainConfig", "train"]
