"""The torch engine: any layout, any device.

On a CPU one recording at a time beats a padded batch; on a GPU a batch is as large as its
seconds allow. Predicting leaves grad mode, train/eval mode and thread counts alone.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from emoser.checkpoints.configs import read_licence, read_stored_dtype
from emoser.checkpoints.layouts import load_checkpoint
from emoser.checkpoints.location import Checkpoint
from emoser.configuration import ModelInfo
from emoser.errors import DeviceError
from emoser.model import EmotionModel
from emoser.runtimes import Answer, OpenedModel, Samples

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GPU_BATCH_SECONDS = 240.0


class TorchRuntime:
    """A model of torch on one device."""

    def __init__(self, model: EmotionModel, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.device = device
        self.dtype = dtype
        self.batch_seconds = None if device.type == "cpu" else GPU_BATCH_SECONDS

    def infer(self, recordings: Sequence[Samples]) -> Answer:
        """Logits and embeddings of one batch; on a CPU the recordings run one after another.

        Raises:
            DeviceError: If one recording alone does not fit the memory of the device.
        """
        if self.device.type == "cpu" and len(recordings) > 1:
            return _join([self._infer_batch([samples]) for samples in recordings])
        return self.infer_padded(recordings)

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them.

        Raises:
            ValueError: If the model does not classify frames.
        """
        with torch.inference_mode():
            batch = torch.from_numpy(np.asarray(samples, np.float32))[None].to(self.device)
            logits = self.model.classify_frames(batch).logits[0]
            return logits.float().softmax(dim=-1).cpu().numpy()

    def infer_padded(self, recordings: Sequence[Samples]) -> Answer:
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

    def _infer_batch(self, recordings: Sequence[Samples]) -> Answer:
        counts = [len(samples) for samples in recordings]
        padded = np.zeros((len(counts), max(counts)), np.float32)
        for row, samples in zip(padded, recordings, strict=True):
            row[: len(samples)] = samples
        lengths = None if min(counts) == max(counts) else torch.tensor(counts).to(self.device)
        with torch.inference_mode():
            batch = torch.from_numpy(padded).to(self.device)
            output = self.model(batch, lengths)
            return Answer(
                output.logits.float().cpu().numpy(), output.embedding.float().cpu().numpy()
            )


def open_torch(
    checkpoint: Checkpoint, *, device: str | torch.device = "auto", dtype: str = "auto"
) -> OpenedModel:
    """Load a checkpoint for torch."""
    chosen = choose_device(device)
    precision = choose_dtype(dtype, chosen, read_stored_dtype(checkpoint.folder))
    loaded = load_checkpoint(checkpoint.folder)
    model = loaded.model
    info = ModelInfo(
        name=checkpoint.name,
        path=str(checkpoint.folder),
        revision=checkpoint.revision,
        layout=loaded.layout,
        licence=read_licence(checkpoint.folder),
        encoder=model.config.encoder,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        sampling_rate=model.config.sampling_rate,
        raw_labels=model.config.raw_labels,
        max_seconds=model.config.max_seconds,
        backend="torch",
        device=str(chosen),
        dtype=str(precision).removeprefix("torch."),
        training=model.config.training,
        notes=loaded.notes,
    )
    return OpenedModel(TorchRuntime(model, chosen, precision), model.config, info)


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


def _join(answers: Sequence[Answer]) -> Answer:
    return Answer(
        np.concatenate([answer.logits for answer in answers]),
        np.concatenate([answer.embeddings for answer in answers]),
    )
