"""The classifier of a service, shared by all requests.

Each request runs in a thread of its own up to the model. There recordings run side by side, one
per stream, on a CPU; on a GPU those that wait form one batch.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from emoser.audio import SAMPLING_RATE, AudioLimits
from emoser.checkpoints.resolve import find_checkpoint
from emoser.classifier import EmotionClassifier
from emoser.runtimes import FrameRuntime, InferenceOutput, OpenedModel, Runtime, Samples
from emoser.runtimes.opening import open_runtime
from emoser.serve.options import ServeOptions


def load_classifier(options: ServeOptions) -> EmotionClassifier:
    """Load the model of a service and predict a second of silence, which takes longest.

    Raises as `EmotionClassifier.from_pretrained`.
    """
    request: dict[str, Any] = {
        "device": options.device,
        "dtype": options.dtype,
        "backend": options.backend,
        "num_streams": options.num_streams,
    }
    opened = open_runtime(find_checkpoint(options.model), **request)
    limits = AudioLimits(max_seconds=options.max_seconds, max_bytes=options.max_bytes)
    shared = replace(opened, runtime=share_runtime(opened, options.num_streams))
    classifier = EmotionClassifier(shared, labels=options.labels, request=request, limits=limits)
    classifier.predict(np.zeros(SAMPLING_RATE, np.float32), sampling_rate=SAMPLING_RATE)
    return classifier


def share_runtime(opened: OpenedModel, num_streams: int) -> Runtime:
    """The engine of a model for many threads: batches where they pay, else streams."""
    runtime = opened.runtime
    if runtime.batch_seconds is not None:
        return BatchedRuntime(runtime, opened.config.sampling_rate)
    return StreamedRuntime(runtime, num_streams)


class StreamedRuntime:
    """An engine that computes at most so many recordings at a time, in the order of their calls."""

    def __init__(self, runtime: Runtime, num_streams: int) -> None:
        self.batch_seconds = runtime.batch_seconds
        self.group_size = 1  # the threads of the requests are parallel already
        self._runtime = runtime
        self._free = threading.Semaphore(num_streams)

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """As the engine, once a stream is free."""
        with self._free:
            return self._runtime.infer(recordings)

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """As the engine, once a stream is free."""
        with self._free:
            return _infer_frames(self._runtime, samples)


class BatchedRuntime:
    """An engine whose calls wait while it computes, and then run as one padded batch.

    A call that finds the engine idle runs at once, so that no recording waits for a full batch.
    """

    def __init__(self, runtime: Runtime, sampling_rate: int) -> None:
        self.batch_seconds = runtime.batch_seconds
        self.group_size = runtime.group_size
        self._runtime = runtime
        self._max_samples = round((runtime.batch_seconds or 0.0) * sampling_rate)
        self._waiting: list[_Call] = []
        self._changing = threading.Lock()
        self._computing = threading.Lock()

    def infer(self, recordings: Sequence[Samples]) -> InferenceOutput:
        """As the engine; the result of each recording is what it is alone."""
        call = _Call(recordings)
        with self._changing:
            self._waiting.append(call)
        while not call.done.is_set():
            with self._computing:
                if not call.done.is_set():
                    self._run(self._take())
        return call.result()

    def infer_frames(self, samples: Samples) -> npt.NDArray[np.float32]:
        """As the engine, while it computes nothing else."""
        with self._computing:
            return _infer_frames(self._runtime, samples)

    def _take(self) -> list["_Call"]:
        """The first calls that fit one batch with their padding."""
        taken: list[_Call] = []
        with self._changing:
            while self._waiting:
                parts = [part for call in (*taken, self._waiting[0]) for part in call.recordings]
                if taken and max(map(len, parts)) * len(parts) > self._max_samples:
                    break
                taken.append(self._waiting.pop(0))
        return taken

    def _run(self, calls: Sequence["_Call"]) -> None:
        try:
            output = self._runtime.infer([part for call in calls for part in call.recordings])
        except Exception as error:
            if len(calls) == 1:
                calls[0].fail(error)  # raised in the thread of the call
            for call in calls if len(calls) > 1 else ():  # the others must not fail with it
                self._run([call])
            return
        for call, part in zip(calls, _split(output, calls), strict=True):
            call.finish(part)


class _Call:
    """The recordings of one thread, and their outputs once `done` is set."""

    def __init__(self, recordings: Sequence[Samples]) -> None:
        self.recordings = recordings
        self.done = threading.Event()
        self._output: InferenceOutput | None = None
        self._error: Exception | None = None

    def finish(self, output: InferenceOutput) -> None:
        self._output = output
        self.done.set()

    def fail(self, error: Exception) -> None:
        self._error = error
        self.done.set()

    def result(self) -> InferenceOutput:
        if self._output is None:
            raise self._error or RuntimeError("the batch has no output")
        return self._output


def _infer_frames(runtime: Runtime, samples: Samples) -> npt.NDArray[np.float32]:
    if not isinstance(runtime, FrameRuntime):
        raise ValueError("this engine has no outputs for single frames")
    return runtime.infer_frames(samples)


def _split(output: InferenceOutput, calls: Sequence[_Call]) -> Iterator[InferenceOutput]:
    start = 0
    for call in calls:
        end = start + len(call.recordings)
        yield InferenceOutput(output.logits[start:end], output.embeddings[start:end])
        start = end
