"""Checkpoints written by code that is not emoser's, with the answers of that code.

Every case writes a folder and returns a function from one recording to the logits that its
authors' code gives for that recording alone. Where their classes can be installed they are used;
otherwise the forward pass is written out here from the published description.
"""

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForSequenceClassification,
    HubertConfig,
    HubertForSequenceClassification,
    SeamlessM4TFeatureExtractor,
    UniSpeechSatConfig,
    UniSpeechSatForSequenceClassification,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMForSequenceClassification,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

from support.models import small_config

RAW_LABELS = ("neu", "HAP", "anger", "sad")
Reference = Callable[[np.ndarray], torch.Tensor]


def labelled(names=RAW_LABELS):
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }


def loud(model: nn.Module, seed=0) -> nn.Module:
    """Random weights large enough for logits far from zero and from one another."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2 and parameter.std() > 0 and "embed_positions" not in name:
                parameter.mul_(1.4 / (parameter.std() * parameter.shape[1] ** 0.5))
            elif "weight" not in name.rsplit(".", 1)[-1]:
                parameter.add_(torch.randn(parameter.shape, generator=generator) / 20)
            if name.endswith("layer_weights"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def prepare(extractor) -> Callable[[np.ndarray], dict]:
    return lambda clip: dict(extractor(clip, sampling_rate=16_000, return_tensors="pt"))


def of_transformers(kind, config, extractor) -> Callable[[Path], Reference]:
    def write(folder):
        torch.manual_seed(0)
        model = loud(kind(config()))
        model.save_pretrained(folder)
        extractor.save_pretrained(folder)
        inputs = prepare(extractor)

        def reference(clip):
            values = inputs(clip)
            if not getattr(extractor, "return_attention_mask", False):
                values.pop("attention_mask", None)
            return model(**values).logits[0]

        return reference

    return write


def speech_config(kind, **changes):
    return lambda: small_config(kind, **{**labelled(), **changes})


def bert_config():
    return Wav2Vec2BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        classifier_proj_size=24,
        conv_depthwise_kernel_size=7,
        **labelled(),
    )


def whisper_config(**changes):
    return lambda: WhisperConfig(
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_layers=1,
        decoder_attention_heads=4,
        decoder_ffn_dim=128,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        classifier_proj_size=24,
        **labelled(),
        **changes,
    )


LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CONFORMER = {"conv_depthwise_kernel_size": 7, "max_source_positions": 40}
RAW_INPUT = Wav2Vec2FeatureExtractor(do_normalize=False)
NORMALIZED = Wav2Vec2FeatureExtractor(do_normalize=True)


def require(name):
    """Skip the test where the package that a case needs is absent."""
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], exc_type=ImportError)
        forget_lazy_modules()


def forget_lazy_modules():
    """Take SpeechBrain's stand-ins out of the table of modules.

    They import what they stand for when anybody looks at them, and `inspect` looks at all.
    """
    kinds = ("LazyModule", "DeprecatedModuleRedirect")
    for name in [name for name, module in sys.modules.items() if type(module).__name__ in kinds]:
        del sys.modules[name]


def write_config(folder, **values):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))


class SoxanHead(nn.Module):
    """The head that github.com/m3hrdadfi/soxan describes."""

    def __init__(self, size, num_labels, last="out_proj"):
        super().__init__()
        self.dense = nn.Linear(size, size)
        setattr(self, last, nn.Linear(size, num_labels))
        self.last = last

    def forward(self, pooled, activation=torch.tanh):
        return getattr(self, self.last)(activation(self.dense(pooled)))


POOLS = {
    "mean": lambda frames: frames.mean(dim=1),
    "sum": lambda frames: frames.sum(dim=1),
    "max": lambda frames: frames.max(dim=1)[0],
}


def of_dense_head(
    names=RAW_LABELS, *, pooling="mean", last="out_proj", activation=torch.tanh, **stated
):
    def write(folder):
        torch.manual_seed(1)
        config = small_config(Wav2Vec2Config, **LAYER_NORM)
        encoder = loud(Wav2Vec2Model(config))
        head = loud(SoxanHead(64, len(names), last))
        tensors = {f"wav2vec2.{name}": value for name, value in encoder.state_dict().items()}
        tensors |= {f"classifier.{name}": value for name, value in head.state_dict().items()}
        values = {**config.to_dict(), **stated}
        values["id2label"] = {str(index): name for index, name in enumerate(names)}
        values["label2id"] = {name: index for index, name in enumerate(names)}
        values["architectures"] = ["Wav2Vec2ForSequenceClassification"]  # as ehcalabres says
        write_config(folder, **values)
        save_file(tensors, folder / "model.safetensors")
        NORMALIZED.save_pretrained(folder)
        inputs = prepare(NORMALIZED)

        def reference(clip):
            frames = encoder(inputs(clip)["input_values"]).last_hidden_state
            return head(POOLS[pooling](frames), activation)[0]

        return reference

    return write


def of_ctc(folder):
    torch.manual_seed(2)
    config = small_config(Wav2Vec2Config, vocab_size=4, **LAYER_NORM, **labelled())
    model = loud(Wav2Vec2ForCTC(config))
    model.save_pretrained(folder)
    NORMALIZED.save_pretrained(folder)
    inputs = prepare(NORMALIZED)
    return lambda clip: model(inputs(clip)["input_values"]).logits[0].mean(dim=0)


SPEECHBRAIN_YAML = """
wav2vec2_hub: {hub}
encoder_dim: 128
wav2vec2: !new:speechbrain.lobes.models.huggingface_wav2vec.HuggingFaceWav2Vec2
    source: !ref <wav2vec2_hub>
    output_norm: True
    freeze: True
avg_pool: !new:speechbrain.nnet.pooling.{pool}
output_mlp: !new:speechbrain.nnet.linear.Linear
    n_neurons: 4
    bias: False
"""


def of_speechbrain(frames=False, old_names=True):
    """SpeechBrain's own classes; the noise that its pooling adds at evaluation is taken out."""

    def write(folder):
        from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2 as SpeechBrainEncoder
        from speechbrain.integrations.huggingface.wavlm import WavLM as SpeechBrainWavLM
        from speechbrain.nnet.linear import Linear
        from speechbrain.nnet.pooling import Pooling1d, StatisticsPooling

        forget_lazy_modules()
        torch.manual_seed(3)
        source = folder.parent / f"{folder.name}-source"
        kind, config_kind = (WavLMModel, WavLMConfig) if frames else (Wav2Vec2Model, Wav2Vec2Config)
        norms = LAYER_NORM if frames else {}
        config = small_config(config_kind, hidden_size=128, num_attention_heads=2, **norms)
        loud(kind(config)).save_pretrained(source)
        NORMALIZED.save_pretrained(source)
        wrapper = SpeechBrainWavLM if frames else SpeechBrainEncoder
        encoder = wrapper(str(source), save_path=str(source), output_norm=True, freeze=True).eval()
        head = loud(Linear(n_neurons=4, input_size=128, bias=False))
        pool = (
            Pooling1d(pool_type="avg", kernel_size=1)
            if frames
            else StatisticsPooling(return_std=False)
        )
        if not frames:
            pool._get_gauss_noise = lambda size, device="cpu": torch.zeros(size)
        _write_speechbrain(folder, encoder, head, frames=frames, old_names=old_names)

        def reference(clip):
            samples = torch.from_numpy(clip)[None]
            if frames:  # its front end subtracts the mean of the recording
                samples = samples - samples.mean()
            pooled = pool(encoder(samples)) if frames else pool(encoder(samples), torch.ones(1))
            logits = head(pooled)[0]
            if frames:
                return logits.softmax(-1).mean(0).log()
            return logits[0]

        return reference

    return write


def _write_speechbrain(folder, encoder, head, *, frames, old_names):
    folder.mkdir(parents=True, exist_ok=True)
    tensors = dict(encoder.state_dict())
    if old_names:  # files of 2021 have the old spelling of weight norm
        for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
            stem = "model.encoder.pos_conv_embed.conv."
            tensors[f"{stem}{old}"] = tensors.pop(f"{stem}parametrizations.weight.{new}")
    torch.save(tensors, folder / "wav2vec2.ckpt")
    torch.save({"0.w.weight": head.w.weight.detach()}, folder / "model.ckpt")
    names = ("a", "n", "h", "s") if frames else ("neu", "ang", "hap", "sad")
    lines = [f"'{name}' => {index}" for index, name in enumerate(names)]
    text = "\n".join([*lines, "================", "'starting_index' => 0", ""])
    (folder / "label_encoder.txt").write_text(text)
    hub = "microsoft/wavlm-large" if frames else "facebook/wav2vec2-base"
    pool = "Pooling1d\n    kernel_size: 1" if frames else "StatisticsPooling\n    return_std: False"
    (folder / "hyperparams.yaml").write_text(SPEECHBRAIN_YAML.format(hub=hub, pool=pool))


class OdysseyReference(nn.Module):
    """WavLM, attentive statistics and MLP as the baseline of the Odyssey challenge has them."""

    def __init__(self, config, num_outputs, num_layers=2):
        super().__init__()
        size = config.hidden_size
        self.ssl_model = WavLMModel(config)
        self.pool_model = nn.Module()
        self.pool_model.sap_linear = nn.Linear(size, size)
        self.pool_model.attention = nn.Parameter(torch.randn(size, 1))
        widths = [2 * size] + [size] * num_layers
        self.ser_model = nn.Module()
        self.ser_model.fc = nn.ModuleList(
            nn.Sequential(nn.Linear(a, b), nn.LayerNorm(b), nn.ReLU(), nn.Dropout(0.5))
            for a, b in itertools.pairwise(widths)
        )
        self.ser_model.out = nn.Sequential(nn.Linear(size, num_outputs))

    def forward(self, samples):
        mask = torch.ones_like(samples)
        frames = self.ssl_model(samples, attention_mask=mask).last_hidden_state[0]
        frames = frames[: (samples.shape[1] - 1) // 320 + 1]
        hidden = torch.tanh(self.pool_model.sap_linear(frames))
        weights = torch.softmax(hidden @ self.pool_model.attention, dim=0)
        mean = (frames * weights).sum(dim=0)
        spread = ((frames**2 * weights).sum(dim=0) - mean**2).clamp(min=1e-5).sqrt()
        pooled = torch.cat([mean, spread])[None]
        for layer in self.ser_model.fc:
            pooled = layer(pooled)
        return self.ser_model.out(pooled)[0]


def of_odyssey(names):
    def write(folder):
        torch.manual_seed(4)
        config = small_config(WavLMConfig, hidden_size=128, num_attention_heads=2, **LAYER_NORM)
        model = loud(OdysseyReference(config, len(names)))
        mean, deviation = -8.278e-05, 0.0848
        write_config(
            folder,
            model_type="ser",
            auto_map={"AutoModelForAudioClassification": "pipeline_utils.SERModel"},
            architectures=["SERModel"],
            mean=mean,
            std=deviation,
            ssl_type="microsoft/wavlm-large",
            id2label={str(index): name for index, name in enumerate(names)},
            label2id={name: index for index, name in enumerate(names)},
        )
        save_file(model.state_dict(), folder / "model.safetensors")
        model = model.double()  # the deviation as published subtracts two numbers near each other

        def reference(clip):
            samples = (clip.astype(np.float64) - mean) / (deviation + 1e-6)
            return model(torch.from_numpy(samples)[None]).float()

        return reference

    return write


class VoxProfileReference(nn.Module):
    """WavLM with low-rank adapters, point-wise convolutions and a classifier, as published."""

    def __init__(self, config, rank):
        super().__init__()
        import loralib

        self.backbone_model = WavLMModel(config)
        for layer in list(self.backbone_model.encoder.layers)[config.num_hidden_layers // 2 :]:
            part = layer.feed_forward
            size, inner = config.hidden_size, config.intermediate_size
            part.intermediate_dense = loralib.Linear(size, inner, r=rank)
            part.output_dense = loralib.Linear(inner, size, r=rank)
        self.weights = nn.Parameter(torch.randn(config.num_hidden_layers + 1))
        width = 32
        self.model_seq = nn.Sequential(
            nn.Conv1d(config.hidden_size, width, 1),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(width, width, 1),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(width, width, 1),
        )
        self.emotion_layer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 9))
        self.detailed_out_layer = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 17)
        )

    def forward(self, samples):
        states = self.backbone_model(samples, output_hidden_states=True).hidden_states
        weights = self.weights.softmax(-1)
        mixed = sum(weight * state for weight, state in zip(weights, states, strict=True))
        pooled = self.model_seq(mixed.transpose(1, 2)).transpose(1, 2).mean(dim=1)
        return self.emotion_layer(pooled)[0]


def of_vox_profile(folder):
    torch.manual_seed(5)
    config = small_config(WavLMConfig, hidden_size=128, num_attention_heads=2, **LAYER_NORM)
    model = loud(VoxProfileReference(config, rank=4))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)
    model.train()  # the file holds the adapters apart, as saved while training
    loud_state = {name: value.clone() for name, value in model.state_dict().items()}
    write_config(folder, finetune_method="lora", lora_rank=4, output_class_num=9)
    save_file(loud_state, folder / "model.safetensors")
    model.eval()  # loralib merges here
    inputs = prepare(NORMALIZED)
    return lambda clip: model(inputs(clip)["input_values"])


TOKENS = (
    "生气/angry",
    "unuse_0",
    "开心/happy",
    "中立/neutral",
    "难过/sad",
    "<unk>",
)


def emotion2vec_settings(size=64, heads=4):
    """The published configuration of emotion2vec+, with a smaller width."""
    audio = {
        "type": "AUDIO",
        "prenet_depth": 2,
        "prenet_layerdrop": 0.05,
        "prenet_dropout": 0.1,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "num_extra_tokens": 10,
        "init_extra_token_zero": False,
        "local_grad_mult": 1.0,
        "use_alibi_encoder": True,
        "alibi_scale": 1.0,
        "learned_alibi": False,
        "alibi_max_pos": None,
        "learned_alibi_scale": True,
        "learned_alibi_scale_per_head": True,
        "learned_alibi_scale_per_layer": False,
        "num_alibi_heads": heads,
        "model_depth": 2,
        "decoder": {
            "decoder_dim": 32,
            "decoder_groups": 4,
            "decoder_kernel": 7,
            "decoder_layers": 2,
            "input_dropout": 0.1,
            "decoder_residual": True,
            "projection_layers": 1,
            "projection_ratio": 2.0,
        },
        "extractor_mode": "layer_norm",
        "feature_encoder_spec": "[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] + [(32, 2, 2)]",
        "conv_pos_width": 95,
        "conv_pos_groups": 16,
        "conv_pos_depth": 5,
        "conv_pos_pre_ln": False,
    }
    return {
        "depth": 2,
        "num_heads": heads,
        "embed_dim": size,
        "mlp_ratio": 4.0,
        "norm_eps": 1e-5,
        "norm_affine": True,
        "layer_norm_first": False,
        "end_of_block_targets": False,
        "encoder_dropout": 0.1,
        "post_mlp_drop": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "dropout_input": 0.0,
        "layerdrop": 0.05,
        "start_drop_path_rate": 0.0,
        "end_drop_path_rate": 0.0,
        "average_top_k_layers": 4,
        "loss_beta": 0.0,
        "loss_scale": None,
        "clone_batch": 8,
        "normalize": True,
        "modalities": {"audio": audio},
    }


def of_emotion2vec(folder):
    """FunASR's own class."""
    from funasr.models.emotion2vec.model import Emotion2vec

    torch.manual_seed(6)
    model = Emotion2vec(model_conf=emotion2vec_settings(), vocab_size=len(TOKENS))
    model = loud(model)
    with torch.no_grad():
        scale = model.modality_encoders["AUDIO"].alibi_scale
        scale.copy_(torch.linspace(-0.2, 2.0, scale.numel()).view(scale.shape))
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": model.state_dict()}, folder / "model.pt")
    (folder / "tokens.txt").write_text("\n".join(TOKENS) + "\n", encoding="utf-8")

    def reference(clip):
        samples = torch.from_numpy(clip)
        samples = nn.functional.layer_norm(samples, samples.shape)[None]
        frames = model.extract_features(samples, padding_mask=None)["x"]
        logits = model.proj(frames.mean(dim=1))[0]
        return logits[[index for index, token in enumerate(TOKENS) if "unuse" not in token]]

    return reference


CASES: dict[str, Callable[[Path], Reference]] = {
    "Wav2Vec2, group norm": of_transformers(
        Wav2Vec2ForSequenceClassification, speech_config(Wav2Vec2Config), NORMALIZED
    ),
    "Wav2Vec2, layer norm, layer sum": of_transformers(
        Wav2Vec2ForSequenceClassification,
        speech_config(Wav2Vec2Config, use_weighted_layer_sum=True, **LAYER_NORM),
        NORMALIZED,
    ),
    "Hubert, raw input": of_transformers(
        HubertForSequenceClassification, speech_config(HubertConfig, **LAYER_NORM), RAW_INPUT
    ),
    "WavLM": of_transformers(
        WavLMForSequenceClassification, speech_config(WavLMConfig, **LAYER_NORM), NORMALIZED
    ),
    "Data2VecAudio": of_transformers(
        Data2VecAudioForSequenceClassification,
        speech_config(Data2VecAudioConfig, num_conv_pos_embeddings=3, conv_pos_kernel_size=7),
        NORMALIZED,
    ),
    "UniSpeechSat": of_transformers(
        UniSpeechSatForSequenceClassification,
        speech_config(UniSpeechSatConfig, **LAYER_NORM),
        NORMALIZED,
    ),
    "Wav2Vec2Conformer, relative": of_transformers(
        Wav2Vec2ConformerForSequenceClassification,
        speech_config(
            Wav2Vec2ConformerConfig,
            position_embeddings_type="relative",
            feat_extract_norm="layer",
            **CONFORMER,
        ),
        NORMALIZED,
    ),
    "Wav2Vec2Conformer, rotary": of_transformers(
        Wav2Vec2ConformerForSequenceClassification,
        speech_config(
            Wav2Vec2ConformerConfig,
            position_embeddings_type="rotary",
            feat_extract_norm="group",
            **CONFORMER,
        ),
        NORMALIZED,
    ),
    "Wav2Vec2Bert": of_transformers(
        Wav2Vec2BertForSequenceClassification, bert_config, SeamlessM4TFeatureExtractor()
    ),
    "Whisper": of_transformers(
        WhisperForAudioClassification, whisper_config(), WhisperFeatureExtractor()
    ),
    "Whisper, layer sum": of_transformers(
        WhisperForAudioClassification,
        whisper_config(use_weighted_layer_sum=True),
        WhisperFeatureExtractor(),
    ),
    "soxan, mean": of_dense_head(pooling_mode="mean"),
    "soxan, sum": of_dense_head(pooling="sum", pooling_mode="sum"),
    "soxan, max": of_dense_head(pooling="max", pooling_mode="max"),
    "audEERING dimensions": of_dense_head(
        ("arousal", "dominance", "valence"), pooling_mode="mean", vocab_size=None
    ),
    "ehcalabres, no activation": of_dense_head(last="output", activation=lambda x: x),
    "ehcalabres, tanh": of_dense_head(last="output", head_activation="tanh"),
    "CTC head": of_ctc,
    "SpeechBrain IEMOCAP": of_speechbrain(),
    "SpeechBrain diarization": of_speechbrain(frames=True, old_names=False),
    "Odyssey categorical": of_odyssey(
        ("Angry", "Sad", "Happy", "Surprise", "Fear", "Disgust", "Contempt", "Neutral")
    ),
    "Odyssey dimensions": of_odyssey(("arousal", "dominance", "valence")),
    "Vox-Profile": of_vox_profile,
    "emotion2vec": of_emotion2vec,
}
"""What loads: name -> what writes it."""

NEEDS = {
    "SpeechBrain IEMOCAP": "speechbrain.integrations.huggingface.wav2vec2",
    "SpeechBrain diarization": "speechbrain.integrations.huggingface.wav2vec2",
    "Vox-Profile": "loralib",
    "emotion2vec": "funasr.models.emotion2vec.model",
}
"""The package without which a case cannot be built."""
