"""Weights: cards of published checkpoints, reading them safely in every layout, loading them strictly, converting."""

from zoo.weights.cards import DEFAULT_ENCODER, RANDOM, default_weights
from zoo.weights.identity import WeightsId, identify, random_seed_of, seeded
from zoo.weights.load import MismatchError, load_card_or_file, load_weights
from zoo.weights.read import Checkpoint, read_checkpoint

__all__ = [
    "DEFAULT_ENCODER",
    "RANDOM",
    "Checkpoint",
    "MismatchError",
    "WeightsId",
    "default_weights",
    "identify",
    "load_card_or_file",
    "load_weights",
    "random_seed_of",
    "read_checkpoint",
    "seeded",
]
