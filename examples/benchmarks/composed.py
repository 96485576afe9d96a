"""Accuracy of a timeline: `python examples/benchmarks/composed.py DATA --plot composed.png`.

DATA is a folder of acted speech with a `manifest.csv` (columns corpus, path, speaker, emotion).
Recordings are composed of clips of one speaker: neutral, angry, four seconds of silence, sad. The
silence at the ends of the clips is cut off, so that the reference holds at any time. Prints the
reference and the timeline of the first recording, and the share of time with the right label, as
the mean over `--draws` recordings of each speaker.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import soundfile

from emoser import EmotionClassifier, Timeline
from emoser.results.plots import plot_timeline, save_figure
from emoser.results.svg import colours_of

RATE = 16_000
PLAN = (("neutral", 3), ("angry", 3), ("silence", 4), ("sad", 3))  # clips; seconds for silence
QUIET = 0.02  # of the peak of a clip; quieter ends are cut off
GRID_SECONDS = 0.01


def trim(samples: np.ndarray) -> np.ndarray:
    """Cut off the quiet ends of a clip."""
    loud = np.flatnonzero(np.abs(samples) > QUIET * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1]


def compose(data: Path, corpus: str, speaker: str, draw: int = 0) -> tuple[np.ndarray, list]:
    """Samples, and the reference as (start, end, name) in seconds; each draw uses other clips."""
    with (data / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["corpus"] == corpus]
    generator = np.random.default_rng([*speaker.encode(), draw])
    parts, truth, position = [], [], 0
    for name, count in PLAN:
        if name == "silence":
            part = np.zeros(count * RATE, np.float32)
        else:
            clips = [r for r in rows if r["speaker"] == speaker and r["emotion"] == name]
            chosen = generator.choice(len(clips), count, replace=False)
            paths = [data / clips[place]["path"] for place in chosen]
            part = np.concatenate([trim(soundfile.read(p, dtype="float32")[0]) for p in paths])
        truth.append((position / RATE, (position + len(part)) / RATE, name))
        position += len(part)
        parts.append(part)
    return np.concatenate(parts), truth


def share_right(timeline: Timeline, truth: list) -> tuple[float, float]:
    """Share of the time, and of the silence alone, with the right label."""
    times = np.arange(GRID_SECONDS / 2, timeline.duration, GRID_SECONDS)
    starts = [segment.start for segment in timeline.segments]
    found = [timeline.segments[i - 1].name for i in np.searchsorted(starts, times, "right")]
    true = [next(n for s, e, n in truth if s <= t < e or e >= timeline.duration) for t in times]
    right = np.array([a == b for a, b in zip(found, true, strict=True)])
    return float(right.mean()), float(right[np.array(true) == "silence"].mean())


def draw_figure(timeline: Timeline, truth: list, path: Path) -> None:
    """Plot the timeline with the reference as coloured areas behind the waveform."""
    figure = plot_timeline(timeline)
    colours = {**colours_of(timeline.labels), "silence": "#ffffff"}
    wave = figure.axes[0]
    top = wave.get_ylim()[1]
    for start, end, name in truth:
        wave.axvspan(start, end, color=colours.get(name, "#ffffff"), alpha=0.3, linewidth=0)
        wave.text((start + end) / 2, top, f"true: {name}", ha="center", va="top", fontsize=7.5)
    save_figure(figure, path)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="emoser-tiny")
    parser.add_argument("--corpus", default="ravdess")
    parser.add_argument("--speakers", default="03,04,16,17,18", help="comma-separated")
    parser.add_argument("--draws", type=int, default=10, help="recordings of each speaker")
    parser.add_argument("--labels", default=None)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    classifier = EmotionClassifier.from_pretrained(
        options.model, device="cpu", labels=options.labels
    )
    shares = []
    for speaker in options.speakers.split(","):
        for draw in range(options.draws):
            samples, truth = compose(options.data, options.corpus, speaker, draw)
            timeline = classifier.timeline(samples, sampling_rate=RATE)
            if not shares:
                print("\n".join(f"{start:6.2f} {end:6.2f}  {name}" for start, end, name in truth))
                print(timeline)
                if options.plot:
                    draw_figure(timeline, truth, options.plot)
            shares.append(share_right(timeline, truth))
        right, silence = np.mean(shares[-options.draws :], axis=0)
        print(f"speaker {speaker}: {right:.0%} of the time right, {silence:.0%} of the silence")
    right, silence = np.mean(shares, axis=0)
    low, high = min(shares)[0], max(shares)[0]
    print(f"mean over {len(shares)} recordings: {right:.0%}, of the silence {silence:.0%}; "
          f"one recording {low:.0%} to {high:.0%}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
