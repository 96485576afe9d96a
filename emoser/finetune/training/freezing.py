"""Which parts of a model are trained: all, all but the convolutions, the last layers, LoRA, none.

Frozen parts have no gradient and stay in eval mode, without dropout, when the model is put into
train mode.
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
    """Freeze the parts that the mode does not train; "lora" adds its adapters.

    Raises:
        ValueError: If the encoder has fewer layers than `last_layers`.
        DependencyError: If the mode is "lora" and peft is not installed.
    """
    for part in frozen_parts(model, config):
        part.requires_grad_(False)
    extractor = getattr(model.encoder, "feature_extractor", None)
    if extractor is not None and not config.run.recompute:
        # transformers computes the gradient of the waveform, which only recomputation needs
        extractor._requires_grad = False
    if config.model.mode == "lora":
        _add_lora(model, config)
    if not config.model.head_bias:
        bias: nn.Parameter = model.head.classifier.bias  # type: ignore[union-attr, assignment]
        with torch.no_grad():
            bias.zero_()
        bias.requires_grad_(False)


def set_training(model: EmotionModel, config: FinetuneConfig) -> None:
    """Put the model into train mode, and its frozen parts into eval mode."""
    model.train()
    if config.model.mode != "lora":
        for part in frozen_parts(model, config):
            part.eval()


def frozen_parts(model: EmotionModel, config: FinetuneConfig) -> list[nn.Module]:
    """The modules that the mode does not train; see `freeze`."""
    mode, last_layers = config.model.mode, config.model.last_layers
    if mode == "entire":
        return []
    if mode not in ("partial", "last-k"):
        return [model.encoder]
    parts = model.encoder.parts()
    if mode == "partial":
        return parts.convolutions
    if last_layers > len(parts.layers):
        raise ValueError(
            f"last_layers is {last_layers}, the encoder has {len(parts.layers)} layers"
        )
    return [*parts.convolutions, *parts.stem, *parts.layers[:-last_layers]]


def merge_lora(model: EmotionModel) -> EmotionModel:
    """A copy of the model with its adapters merged into the weights.

    A model without adapters is returned as it is.
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
    rank = config.model.lora_rank
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(LORA_TARGETS))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.run.seed)
        inject_adapter_in_model(settings, model.encoder.backbone)


def _is_lora(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
