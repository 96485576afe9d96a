"""Register `model_type: "emoser"` with the Auto classes and pipelines of transformers.

Importing this module changes nothing; `register()` adds the classes. Folders in the layout of
transformers itself do not need it.

    from transformers import pipeline
    from emoser.checkpoints.registration import register
    register()
    pipeline("audio-classification", "folder")
"""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor

from emoser.checkpoints.backbones import build_encoder
from emoser.checkpoints.files import CONFIG
from emoser.checkpoints.layouts.emoser import MODEL_TYPE
from emoser.models import torchaudio_guard  # noqa: F401  # before the first import of transformers
from emoser.models.config import ModelConfig
from emoser.models.model import EmotionModel

from transformers import (  # isort: skip
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    Wav2Vec2FeatureExtractor,
)
from transformers.modeling_outputs import SequenceClassifierOutput  # isort: skip


@strict
class EmoserConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of the layout "emoser" for transformers.

    Attributes:
        backbone_config: Configuration of the encoder.
        emoser: Everything around the encoder, as `ModelConfig.to_block` writes it.
    """

    model_type = MODEL_TYPE

    backbone_config: dict[str, Any] | None = None
    emoser: dict[str, Any] | None = None


class EmoserForAudioClassification(PreTrainedModel):  # type: ignore[misc]
    """An `EmotionModel` with the interface of transformers."""

    config_class = EmoserConfig
    base_model_prefix = MODEL_TYPE
    main_input_name = "input_values"

    def __init__(self, config: EmoserConfig) -> None:
        super().__init__(config)
        stated = ModelConfig.from_block(config.emoser or {})
        encoder = build_encoder(config.backbone_config or {}, stated, Path(CONFIG))
        self.emoser = EmotionModel(stated, encoder)
        self.post_init()

    def forward(
        self, input_values: Tensor, attention_mask: Tensor | None = None, **ignored: Any
    ) -> SequenceClassifierOutput:
        """Logits of raw samples, which the model normalises itself."""
        lengths = None if attention_mask is None else attention_mask.sum(dim=1)
        stated = self.emoser.config
        logits = self.emoser(input_values, lengths).logits
        if stated.temperature != 1.0:
            scale = torch.ones(logits.shape[1], dtype=logits.dtype, device=logits.device)
            scale[: len(stated.labels)] = stated.temperature
            logits = logits / scale
        return SequenceClassifierOutput(logits=logits)


def register() -> None:
    """Add the layout "emoser" to the Auto classes of transformers; may be called repeatedly."""
    AutoConfig.register(MODEL_TYPE, EmoserConfig, exist_ok=True)
    AutoModelForAudioClassification.register(
        EmoserConfig, EmoserForAudioClassification, exist_ok=True
    )
    AutoFeatureExtractor.register(EmoserConfig, Wav2Vec2FeatureExtractor, exist_ok=True)
