"""The torch engine: any layout, any device.

On a CPU recordings are never padded: several run side by side, each on a thread of its own. On
a GPU a batch is as large as its seconds allow. How many threads there are is read once, when
the model is opened; predicting leaves grad mode, train/eval mode and thread counts alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.errors import DeviceError
from emoser.models.model import EmotionModel
from emoser.runtimes import InferenceOutput, OpenedModel, Samples
from emoser.runtimes.manifest import build_info, describe_source
from emoser.runtimes.torch.convolutions import (
    FastConvolutions,
    fold_weight_norms,
    optimize_convolutions,
)
from emoser.runtimes.torch.linear import optimize_transformer
from emoser.runtimes.torch.threads import WorkerThreads, can_work_alone

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GPU_BATCH_SECONDS = 240.0
SMALL_MODEL = 20_000_000  # weights below which threads wait for one another more than they help
GROUP_ROUNDS = 4  # recordings per thread in a group, so that a long one does not end it alone
LONG_SAMPLES = 12 * 16_000  # from here on all threads work at one recording of a large model


class TorchRuntime:
    """A model of torch on one device, which it takes over: no more training, no more saving."""

    def __init__(self, model: EmotionModel, device: torch.device, dtype: torch.dtype) -> None:
        # Counted before the weights are laid out anew, which are no parameters then.
        self.small = sum(item.numel() for item in model.parameters()) < SMALL_MODEL
        fold_weight_norms(model)
        if device.type == "cpu":
            optimize_convolutions(model.encoder)
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        if device.type == "cpu":
            optimize_transformer(model.encoder.backbone)
            convolutions = getattr(model.encoder, "feature_extractor", None)
            if isinstance(convolutions, FastConvolutions):
                convolutions.lay_out()
        self.device = device
        self.dtype = dtype
        self.batch_seconds = None if device.type == "cpu" else GPU_BATCH_SECONDS
        num_threads = torch.get_num_threads() if device.type == "cpu" else 1
        alone = num_threads > 1 and can_work_alone()
        self.crew = WorkerThreads(num_threads) if alone else None
        self.group_size = GROUP_ROUNDS * num_threads if alone else 1

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of recordings; on a CPU they run side by side.

        Long recordings of a large model run one after another: they fill the threads alone, and
        side by side they would need the memory several times.

        Raises:
            DeviceError: If one recording alone does not fit the memory of the device.
        """
        if self.device.type != "cpu":
            return self.infer_padded(recordings)
        if self.crew is None or (len(recordings) == 1 and not self.small):
            return _join([self._infer_batch([samples]) for samples in recordings])
        order = sorted(range(len(recordings)), key=lambda place: -len(recordings[place]))
        num_long = 0 if self.small else sum(len(item) >= LONG_SAMPLES for item in recordings)
        parts = [[recordings[place]] for place in order]
        answers = [self._infer_batch(part) for part in parts[:num_long]]
        answers += self.crew.map(self._infer_batch, parts[num_long:])
        told = dict(zip(order, answers, strict=True))
        return _join([told[place] for place in range(len(order))])

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them.

        Raises:
            ValueError: If the model does not classify frames.
        """
        with torch.inference_mode():
            batch = torch.from_numpy(np.asarray(samples, np.float32))[None].to(self.device)
            logits = self.model.classify_frames(batch).logits[0]
            return logits.float().softmax(dim=-1).cpu().numpy()

    def infer_padded(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of one padded batch, halved while it does not fit the memory.

        Raises:
            DeviceError: If one recording alone does not fit.
        """
        try:
            return self._infer_batch(recordings)
        except torch.OutOfMemoryError as error:
            if len(recordings) == 1:
                seconds = len(recordings[0]) / self.model.config.sampling_rate
                raise DeviceError(
                    f"{self.device} has too little memory for {seconds:.0f} s of audio at once; "
                    "use a smaller model or device='cpu'"
                ) from error
        torch.cuda.empty_cache()
        half = len(recordings) // 2
        return _join([self.infer_padded(part) for part in (recordings[:half], recordings[half:])])

    def _infer_batch(self, recordings: Sequence[Samples]) -> InferenceOutput:
        counts = [len(samples) for samples in recordings]
        pinned = self.device.type == "cuda"  # such memory is copied while the device works
        padded = torch.zeros(len(counts), max(counts), pin_memory=pinned)
        for row, samples in zip(padded.numpy(), recordings, strict=True):
            row[: len(samples)] = samples
        lengths = None if min(counts) == max(counts) else torch.tensor(counts).to(self.device)
        with torch.inference_mode():
            batch = padded.to(self.device, non_blocking=pinned)
            output = self.model(batch, lengths)
            return InferenceOutput(
                output.logits.float().cpu().numpy(), output.embedding.float().cpu().numpy()
            )


def open_torch(
    files: CheckpointFiles, *, device: str | torch.device = "auto", dtype: str = "auto"
) -> OpenedModel:
    """Load a checkpoint into torch.

    Raises:
        ValueError: If the device or the precision is not supported.
        CheckpointError: If the checkpoint does not load.
        DeviceError: If the device is not available.
    """
    chosen = choose_device(device)
    precision = choose_dtype(dtype, chosen, files.stored_dtype)
    loaded = load_checkpoint(files)
    info = build_info(
        files,
        describe_source(files, loaded),
        loaded.model.config,
        backend="torch",
        device=str(chosen),
        dtype=str(precision).removeprefix("torch."),
    )
    return OpenedModel(TorchRuntime(loaded.model, chosen, precision), loaded.model.config, info)


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If torch knows no device of this name.
        DeviceError: If it is not on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r} is none of 'auto', 'cpu', 'cuda', 'mps'") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {str(device)!r} was asked for and torch sees {torch.cuda.device_count()} CUDA "
            "devices; use device='cpu', or install a torch build for your GPU and driver"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' was asked for and is not there; use device='cpu'")
    return chosen


def choose_dtype(dtype: str, device: torch.device, stored: str) -> torch.dtype:
    """The precision of a name; "auto" is float32 on a CPU and the checkpoint's own elsewhere.

    Raises:
        ValueError: If emoser does not run in this precision.
    """
    if dtype == "auto":
        return DTYPES.get("float32" if device.type == "cpu" else stored, torch.float32)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; use 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _join(answers: Sequence[InferenceOutput]) -> InferenceOutput:
    return InferenceOutput(
        np.concatenate([answer.logits for answer in answers]),
        np.concatenate([answer.embeddings for answer in answers]),
    )
