"""Samples of one channel on their way to the model: resampled, measured, and checked."""

import numpy as np

from emoser.audio.limits import SAMPLING_RATE, FloatArray
from emoser.audio.quality import QualityMeter
from emoser.audio.resampling import StreamResampler
from emoser.errors import AudioError


class Intake:
    """Takes the samples of a recording, or of a piece of one, and gives them at another rate.

    The joined outputs and the flags are those of a file that holds these samples alone, whatever
    the sizes of the blocks.

    Args:
        name: The recording in messages.
        source_rate: Rate of the samples in Hz.
        target_rate: Rate of the outputs in Hz.
        first: Samples of the recording before those of the piece.

    Attributes:
        num_frames: Samples taken so far.

    Raises:
        AudioError: In `push` and `flush`, if samples are not finite; in `flush`, if there is no
            output.

    Example:
        >>> intake = Intake("call.wav", 8_000)
        >>> len(intake.push(np.zeros(4_000, np.float32))) + len(intake.flush())
        8000
        >>> intake.duration, intake.flags()
        (0.5, ('silence', 'narrow-band'))
    """

    def __init__(
        self, name: str, source_rate: int, *, target_rate: int = SAMPLING_RATE, first: int = 0
    ) -> None:
        self.num_frames = 0
        self._name = name
        self._source_rate, self._target_rate = source_rate, target_rate
        self._first = first
        self._num_resampled = 0
        self._meter = QualityMeter(source_rate)
        self._resampler = StreamResampler(source_rate, target_rate=target_rate)
        # Flags belong to the recording: they are measured at one rate, whatever the model takes.
        self._measured = None
        if target_rate != SAMPLING_RATE:
            self._measured = StreamResampler(source_rate)

    def push(self, samples: FloatArray) -> FloatArray:
        """The next samples, (T,) at the source's rate -> (n,) at the target's; n may be 0."""
        self._refuse_non_finite(samples, self._source_rate)
        self.num_frames += len(samples)
        self._meter.update(samples)
        if self._measured is not None:
            self._meter.update_resampled(self._measured.push(samples))
        return self._checked(self._resampler.push(samples))

    def flush(self) -> FloatArray:
        """What the filter still holds, (n,); the piece ends here."""
        if self._measured is not None:
            self._meter.update_resampled(self._measured.flush())
        rest = self._checked(self._resampler.flush())
        if not self._num_resampled:
            raise AudioError(
                f"{self._name} holds {self.num_frames or 'no'} samples at "
                f"{self._source_rate} Hz, too few to process; record or copy it again"
            )
        return rest

    @property
    def duration(self) -> float:
        """Seconds taken so far."""
        return self.num_frames / self._source_rate

    def flags(self, *, truncated: bool = False) -> tuple[str, ...]:
        """The quality flags of the samples so far."""
        return self._meter.flags(truncated=truncated)

    def _checked(self, samples: FloatArray) -> FloatArray:
        self._refuse_non_finite(samples, self._target_rate)  # a sum in the filter can overflow
        if self._measured is None:
            self._meter.update_resampled(samples)
        self._num_resampled += len(samples)
        return samples

    def _refuse_non_finite(self, samples: FloatArray, rate: int) -> None:
        finite = np.isfinite(samples)
        if finite.all():
            return
        place = int(np.argmin(finite))
        seconds = (self._first + self.num_frames) / self._source_rate + place / rate
        raise AudioError(
            f"{self._name} holds {'NaN' if np.isnan(samples[place]) else 'infinity'} "
            f"at {seconds:.3f} s; repair or export it again"
        )
