"""The torch engine: any layout, any device.

On a CPU recordings are never padded: several run in parallel, a few on each thread. On a GPU they
run in padded batches. The number of threads is read once, when the model is opened;
predicting does not change grad mode, train/eval mode or thread counts.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from emoser.checkpoints.files import CheckpointFiles
from emoser.checkpoints.layouts.registry import load_checkpoint
from emoser.errors import DeviceError
from emoser.models.model import EmotionModel, EmotionOutput
from emoser.runtimes import EngineSettings, InferenceOutput, OpenedModel, Samples
from emoser.runtimes.manifest import build_info, describe_source
from emoser.runtimes.parallel import GROUP_ROUNDS, WorkerThreads, run_in_parallel
from emoser.runtimes.torch.convolutions import (
    FastConvolutions,
    fold_weight_norms,
    optimize_convolutions,
    pack_convolutions,
)
from emoser.runtimes.torch.packing import encode_packed, prepare_packing
from emoser.runtimes.torch.threads import can_work_alone, work_alone
from emoser.runtimes.torch.transformer import optimize_transformer

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GPU_BATCH_SECONDS = 240.0
PACK_SAMPLES = 24 * 16_000  # of recordings that pass through the layers together
SMALL_MODEL = 20_000_000  # weights; below, threads of one operation wait more than they help


class TorchRuntime:
    """A model of torch on one device, which takes ownership: it cannot be trained or saved."""

    def __init__(
        self,
        model: EmotionModel,
        device: torch.device,
        dtype: torch.dtype,
        *,
        num_streams: int = 1,
    ) -> None:
        # Counted before the weights are packed and are no longer parameters.
        self.small = sum(item.numel() for item in model.parameters()) < SMALL_MODEL
        self.split = self.small or num_streams > 1  # recordings among threads, never one recording
        fold_weight_norms(model)
        if device.type == "cpu":
            optimize_convolutions(model.encoder)
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        if device.type == "cpu":
            optimize_transformer(model.encoder.backbone)
            pack_convolutions(model.encoder.backbone)
            convolutions = getattr(model.encoder, "feature_extractor", None)
            if isinstance(convolutions, FastConvolutions):
                convolutions.pack()
        self.packs = device.type == "cpu" and prepare_packing(model.encoder)
        self.device = device
        self.dtype = dtype
        self.batch_seconds = None if device.type == "cpu" else GPU_BATCH_SECONDS
        num_threads = torch.get_num_threads() if device.type == "cpu" else 1
        alone = num_threads > 1 and can_work_alone()
        self.workers = WorkerThreads(num_threads, work_alone) if alone else None
        self.group_size = GROUP_ROUNDS * num_threads if alone else 1

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of recordings; on a CPU they run in parallel.

        Long recordings of a large model run one after another: each uses all threads, and in
        parallel they would need several times the memory.

        Raises:
            DeviceError: If a single recording does not fit the memory of the device.
        """
        if self.device.type != "cpu":
            return self.infer_padded(recordings)
        if self.workers is None or (len(recordings) == 1 and not self.split):
            return _join([self._infer_alone(samples) for samples in recordings])
        outputs = run_in_parallel(
            recordings,
            self.workers,
            on_one_core=self._infer_pack,
            on_all_cores=None if self.split else self._infer_alone,
            pack_samples=PACK_SAMPLES if self.packs else 0,
        )
        return _join(outputs)

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Probabilities of every frame of one recording, (L, C), from a model that has them."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.asarray(samples, np.float32))[None].to(self.device)
            logits = self.model.classify_frames(batch).logits[0]
            return logits.float().softmax(dim=-1).cpu().numpy()

    def infer_padded(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """Logits and embeddings of one padded batch, split in halves until it fits the memory."""
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

    def _infer_alone(self, samples: Samples) -> InferenceOutput:
        return self._infer_batch([samples])

    def _infer_pack(self, recordings: Sequence[Samples]) -> list[InferenceOutput]:
        """Each recording's output, from one pass if there are several."""
        if len(recordings) == 1:
            return [self._infer_alone(recordings[0])]
        with torch.inference_mode():
            outputs = map(self.model.classify, encode_packed(self.model, recordings))
            return [_as_output(output) for output in outputs]

    def _infer_batch(self, recordings: Sequence[Samples]) -> InferenceOutput:
        counts = [len(samples) for samples in recordings]
        pinned = self.device.type == "cuda"  # pinned memory is copied while the device computes
        padded = torch.zeros(len(counts), max(counts), pin_memory=pinned)
        for row, samples in zip(padded.numpy(), recordings, strict=True):
            row[: len(samples)] = samples
        lengths = None if min(counts) == max(counts) else torch.tensor(counts).to(self.device)
        with torch.inference_mode():
            batch = padded.to(self.device, non_blocking=pinned)
            return _as_output(self.model(batch, lengths))


def open_torch(files: CheckpointFiles, settings: EngineSettings) -> OpenedModel:
    """Load a checkpoint into torch.

    Raises:
        ValueError: If the device or the precision is not supported.
        CheckpointError: If the checkpoint does not load.
        DeviceError: If the device is not available.
    """
    chosen = choose_device(settings.device)
    precision = choose_dtype(settings.dtype, chosen, files.stored_dtype)
    loaded = load_checkpoint(files)
    info = build_info(
        files,
        describe_source(files, loaded),
        loaded.model.config,
        backend="torch",
        device=str(chosen),
        dtype=str(precision).removeprefix("torch."),
    )
    runtime = TorchRuntime(loaded.model, chosen, precision, num_streams=settings.num_streams)
    return OpenedModel(runtime, loaded.model.config, info)


def choose_device(device: str | torch.device) -> torch.device:
    """The device of a name; "auto" is CUDA, then MPS, then the CPU.

    Raises:
        ValueError: If torch has no device of this name.
        DeviceError: If it is not available on this machine.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device is {device!r}; use 'auto', 'cpu', 'cuda', 'cuda:N' or 'mps'"
        ) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device is {str(device)!r} and torch finds {torch.cuda.device_count()} CUDA "
            "devices; use device='cpu', or install a torch build for your GPU and driver"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device is 'mps', which is not available; use device='cpu'")
    return chosen


def choose_dtype(dtype: str, device: torch.device, stored: str) -> torch.dtype:
    """The precision of a name; "auto" is float32 on a CPU and elsewhere that of the checkpoint."""
    if dtype == "auto":
        return DTYPES.get("float32" if device.type == "cpu" else stored, torch.float32)
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; use 'auto' or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _as_output(output: EmotionOutput) -> InferenceOutput:
    return InferenceOutput(
        output.logits.float().cpu().numpy(), output.embedding.float().cpu().numpy()
    )


def _join(outputs: Sequence[InferenceOutput]) -> InferenceOutput:
    return InferenceOutput(*map(np.concatenate, zip(*outputs, strict=True)))
