"""What of a model learns: everything, all but the convolutions, the head, the last layers, LoRA.

What does not learn has no gradient and stays in eval mode, without dropout, also when the model
is put into train mode. Knows nothing of optimisers.
"""

import copy
from typing import Any

import torch
from torch import nn

from emoser.errors import missing_extra
from emoser.finetune.config import FinetuneConfig
from emoser.models.model import EmotionModel

LORA_TARGETS = ("q_proj", "v_proj")


def freeze(model: EmotionModel, config: FinetuneConfig) -> None:
    """Take the gradient from what does not learn; "lora" adds its weights.

    Raises:
        ValueError: If the encoder has fewer layers than are to learn.
        DependencyError: If "lora" is asked for and peft is not installed.
    """
    for part in resting_parts(model, config):
        part.requires_grad_(False)
    extractor = getattr(model.encoder, "feature_extractor", None)
    if extractor is not None and not config.run.recompute:
        # transformers asks for the gradient of the waveform, which only recomputation needs
        extractor._requires_grad = False
    if config.model.mode == "lora":
        _add_lora(model, config)
    if not config.model.head_bias:
        bias: nn.Parameter = model.head.classifier.bias  # type: ignore[union-attr, assignment]
        with torch.no_grad():
            bias.zero_()
        bias.requires_grad_(False)


def set_training(model: EmotionModel, config: FinetuneConfig) -> None:
    """Put the model into train mode, but what does not learn into eval mode."""
    model.train()
    if config.model.mode != "lora":
        for part in resting_parts(model, config):
            part.eval()


def resting_parts(model: EmotionModel, config: FinetuneConfig) -> list[nn.Module]:
    """The modules that do not learn.

    Raises:
        ValueError: If the encoder has fewer layers than are to learn.
    """
    encoder = model.encoder
    if config.model.mode == "entire":
        return []
    if config.model.mode not in ("partial", "last-k"):
        return [encoder]
    parts = encoder.parts()
    if config.model.mode == "partial":
        return parts.convolutions
    if config.model.last_layers > len(parts.layers):
        raise ValueError(
            f"last_layers is {config.model.last_layers}, the encoder has {len(parts.layers)}"
        )
    below = parts.layers[: len(parts.layers) - config.model.last_layers]
    return [*parts.convolutions, *parts.stem, *below]


def merge_lora(model: EmotionModel) -> EmotionModel:
    """A copy of the model in which low-rank additions are part of the weights they are added to.

    A model without such additions is returned as it is.
    """
    if not any(_is_lora(module) for module in model.modules()):
        return model
    merged = copy.deepcopy(model)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if _is_lora(child):
                layer: Any = child
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
    return merged


def _add_lora(model: EmotionModel, config: FinetuneConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise missing_extra("LoRA", "lora") from error
    settings = LoraConfig(
        r=config.model.lora_rank, lora_alpha=2 * config.model.lora_rank, target_modules=list(LORA_TARGETS)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        inject_adapter_in_model(settings, model.encoder.backbone)


def _is_lora(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
