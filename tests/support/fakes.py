"""A classifier whose runtime is a formula, for tests of time and not of emotion."""

import numpy as np

from emoser import EmotionClassifier
from emoser.models.config import ModelConfig, ModelInfo
from emoser.runtimes import InferenceOutput, OpenedModel

LABELS = ("neutral", "happy", "angry", "sad")


class FormulaRuntime:
    """Logits that depend on every sample of a recording, and on nothing else."""

    batch_seconds = None
    group_size = 1

    def __init__(self) -> None:
        self.num_inferred = 0

    def infer(self, recordings):
        self.num_inferred += len(recordings)
        logits = np.stack([self.logits_of(samples) for samples in recordings])
        return InferenceOutput(logits, logits)

    @staticmethod
    def logits_of(samples):
        """Louder is angrier, slower is sadder, a rise is happier."""
        loudness = float(np.abs(samples).mean()) * 20
        slope = float((samples * np.linspace(-1, 1, len(samples))).mean()) * 40
        crossings = float((np.diff(np.signbit(samples)) != 0).mean()) * 8
        return np.array([1.0, slope, loudness, 2 - crossings], np.float32)


def formula_classifier(runtime=None, *, max_seconds: float = 30.0) -> EmotionClassifier:
    """A classifier with the formula for a model."""
    config = ModelConfig(labels=LABELS, max_seconds=max_seconds)
    info = ModelInfo(
        name="formula",
        path="",
        revision=None,
        layout="none",
        licence=None,
        encoder="hubert",
        parameters=0,
        sampling_rate=16_000,
        raw_labels=LABELS,
        max_seconds=max_seconds,
        backend="torch",
        device="cpu",
        dtype="float32",
    )
    return EmotionClassifier(OpenedModel(runtime or FormulaRuntime(), config, info))


def voice_and_pauses(plan, *, rate: int = 16_000, seed: int = 0) -> np.ndarray:
    """Noise of the levels of a plan of (seconds, level); a level of 0 is digital silence."""
    generator = np.random.default_rng(seed)
    parts = [generator.standard_normal(round(seconds * rate)) * level for seconds, level in plan]
    return np.concatenate(parts).astype(np.float32)
