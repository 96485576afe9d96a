"""How a recording is cut and judged along its time: the options, their defaults and limits.

Plain numbers without NumPy, so that the command line can show them at once.
"""

from dataclasses import dataclass

# Acted clips last three seconds, and so do the shortest turns whose emotion people agree on.
DEFAULT_WINDOW_SECONDS = 3.0
DEFAULT_HOP_SECONDS = 1.0
DEFAULT_SMOOTHING = 0.1
DEFAULT_THRESHOLD = 0.35
DEFAULT_VAD = "energy"
VADS = ("energy", "silero", None)
MIN_WINDOW_SECONDS = 0.1  # below two syllables nothing can be told


@dataclass(frozen=True)
class TimelineOptions:
    """How a recording is cut and judged along its time.

    Attributes:
        window_seconds: What the model hears at once.
        hop_seconds: Time from one window to the next, at most a window.
        smoothing: By how much another emotion must be ahead to take over, in probability.
        threshold: Probability below which nothing is certain.
        vad: "energy", "silero", or None for no silence.
        max_window_seconds: The longest piece that the model takes.
    """

    window_seconds: float = DEFAULT_WINDOW_SECONDS
    hop_seconds: float = DEFAULT_HOP_SECONDS
    smoothing: float = DEFAULT_SMOOTHING
    threshold: float = DEFAULT_THRESHOLD
    vad: str | None = DEFAULT_VAD
    max_window_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: Naming what is out of range.
        """
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
        """Samples of a window."""
        return round(self.window_seconds * sampling_rate)

    def hop(self, sampling_rate: int) -> int:
        """Samples from one window to the next."""
        return max(1, round(self.hop_seconds * sampling_rate))


def check_vad(vad: str | None) -> None:
    """Refuse an unknown name of a voice activity detector.

    Raises:
        ValueError: If it is not in `VADS`.
    """
    if vad not in VADS:
        names = ", ".join(repr(name) for name in VADS if name is not None)
        raise ValueError(f"vad is {vad!r}; use one of {names}, or None")
