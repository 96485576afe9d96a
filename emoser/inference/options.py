"""Options of timelines, with their defaults and limits.

Imports nothing but the standard library, so that the command line can show them quickly.
"""

from dataclasses import dataclass

VADS = ("energy", "silero", None)
MIN_WINDOW_SECONDS = 0.1  # shorter than a syllable


@dataclass(frozen=True)
class TimelineOptions:
    """How a recording is cut into windows and segments.

    Attributes:
        window_seconds: Length of the chunks that the model gets.
        hop_seconds: Time from one window to the next, at most the window.
        smoothing: Lead in probability that another emotion needs to replace the present one.
        threshold: Probability below which a segment is "uncertain".
        vad: "energy", "silero", or None, which finds no silence.
        max_window_seconds: The longest window that the model takes.

    Raises:
        ValueError: If an option is out of its range.
    """

    # The length of acted clips, and of the shortest turns on whose emotion listeners agree.
    window_seconds: float = 3.0
    hop_seconds: float = 1.0
    smoothing: float = 0.1
    threshold: float = 0.35
    vad: str | None = "energy"
    max_window_seconds: float = 30.0

    def __post_init__(self) -> None:
        longest = self.max_window_seconds
        if not MIN_WINDOW_SECONDS <= self.window_seconds <= longest:
            raise ValueError(
                f"window_seconds is {self.window_seconds}; this model takes "
                f"{MIN_WINDOW_SECONDS:g} to {longest:g} s at once"
            )
        if not 0 < self.hop_seconds <= self.window_seconds:
            raise ValueError(
                f"hop_seconds is {self.hop_seconds}; it must be above 0 and at most the window, "
                f"{self.window_seconds:g} s"
            )
        check_vad(self.vad)
        for name in ("smoothing", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it is a probability, from 0 to 1"
                )

    def window(self, sampling_rate: int) -> int:
        """Length of a window in samples."""
        return round(self.window_seconds * sampling_rate)

    def hop(self, sampling_rate: int) -> int:
        """Hop in samples."""
        return max(1, round(self.hop_seconds * sampling_rate))


def check_vad(vad: str | None) -> None:
    """Raise a ValueError for an unknown name of a voice activity detector."""
    if vad not in VADS:
        names = ", ".join(repr(name) for name in VADS if name is not None)
        raise ValueError(f"vad is {vad!r}; use one of {names}, or None")
