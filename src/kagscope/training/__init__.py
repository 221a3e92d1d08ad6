"""Train MLPs on images: several seeds at once, with or without spatial augmentation."""

from __future__ import annotations

from kagscope.training.loop import TrainedNetwork, train
from kagscope.training.settings import Augmentation, TrainingSettings

__all__ = ["Augmentation", "TrainedNetwork", "TrainingSettings", "train"]
