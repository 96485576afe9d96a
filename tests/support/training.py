"""A small model, and settings for a short training."""

from transformers import Wav2Vec2Config

from emoser.checkpoints.save import build_model
from emoser.finetune import FinetuneConfig
from emoser.finetune.config import Augmentation
from emoser.models.config import ModelConfig
from support.models import LABELS, small_config

STILL = {
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
}
CONFIG = FinetuneConfig(
    epochs=2,
    batch_size=4,
    encoder_learning_rate=1e-3,
    head_learning_rate=1e-3,
    crop_seconds=None,
    augmentation=Augmentation.off(),
    seed=3,
)


def small_model(seed=0, *, dropout=True, layer_mix=False, **changes):
    config = small_config(
        Wav2Vec2Config, mask_time_length=2, **({} if dropout else STILL), **changes
    )
    model_config = ModelConfig(labels=LABELS, layer_mix=layer_mix)
    return build_model(config, model_config, seed=seed)
