"""One process of the fuzz command: numbered cases of one part, an outcome in JSON for each.

    python examples/fuzz/worker.py PART SEEDS SCRATCH FIRST

runs cases from FIRST on until it is ended. A line announces each case before it runs, so that
the one that ends or blocks the process is known. Memory is limited before the first case.
"""

import json
import math
import os
import random
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import mutations
import seeds

from emoser import EmotionClassifier
from emoser.errors import EmoserError

MEMORY = 4 * 2**30  # beyond what the process takes after its imports
TORCH = "torchinductor_"  # a folder that torch makes when it is first imported
TOLERANCE = 1e-4  # of a probability; also that of an exported graph to its source
SENDING = ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.gethostbyname")

asked: list[str] = []  # connections since the last case


def main() -> None:
    """Run the cases of a part."""
    part, place, scratch, first = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    sys.addaudithook(lambda event, words: asked.append(event) if event in SENDING else None)
    tempfile.tempdir = str(scratch)
    os.chdir(scratch)
    run_case = PARTS[part](place)
    _limit_memory()
    number = int(first)
    while True:
        print(json.dumps({"begin": number}), flush=True)
        outcome, detail = _run(run_case, random.Random(f"{part} {number}"), scratch / "case")
        left = sorted(
            item.name for item in scratch.iterdir() if not item.name.startswith(("case", TORCH))
        )
        if left:
            outcome, detail = "left behind", f"{detail}: {left}"
        for name in left:
            _remove(scratch / name)
        if asked:
            outcome, detail = "socket", f"{detail}: {asked}"
            asked.clear()
        _remove(scratch / "case")
        print(json.dumps({"case": number, "outcome": outcome, "detail": detail}), flush=True)
        number += 1


Case = Callable[[random.Random, Path], tuple[str, str]]


def _run(run_case: Case, dice: random.Random, case: Path) -> tuple[str, str]:
    try:
        return run_case(dice, case)
    except Exception as error:  # anything but emoser's own errors is what is looked for
        names = [type(error).__name__]
        return "raw exception", f"{names[0]}: {str(error)[:200]}"


def _answer(classifier: EmotionClassifier, source: Any, **options: Any) -> dict[str, float]:
    made = classifier.predict(source, **options)
    return {**made.scores, **(made.dimensions or {})}


def _is_sound(classifier: EmotionClassifier, scores: dict[str, float]) -> bool:
    """Finite numbers for all outputs; the labels' are probabilities."""
    labels = [scores[name] for name in classifier.labels]
    if not all(math.isfinite(value) for value in scores.values()):
        return False
    several = classifier._predictor.config.multi_label
    total = several or not labels or abs(sum(labels) - 1.0) < TOLERANCE
    return total and all(-TOLERANCE <= value <= 1 + TOLERANCE for value in labels)


def _differ(one: dict[str, float], other: dict[str, float]) -> bool:
    return set(one) != set(other) or any(abs(one[name] - other[name]) > TOLERANCE for name in one)


def audio(place: Path) -> Case:
    """Mutated recordings: read from the path and from bytes, with one answer."""
    files = seeds.write_recordings(place) if not place.is_dir() else sorted(place.iterdir())
    classifier = EmotionClassifier.from_pretrained("emoser-tiny", backend="torch", device="cpu")

    def run(dice: random.Random, case: Path) -> tuple[str, str]:
        file = seeds.choose(files, dice)
        case.mkdir()
        mutant = case / file.name
        mutant.write_bytes(mutations.mutate_bytes(file.read_bytes(), dice))
        try:
            scores = _answer(classifier, mutant)
        except EmoserError:
            return "refused", file.name
        if not _is_sound(classifier, scores):
            return "wrong answer", file.name
        if _differ(scores, _answer(classifier, mutant.read_bytes())):
            return "wrong answer", f"{file.name}: path and bytes differ"
        return "answered", file.name

    return run


def checkpoints(place: Path) -> Case:
    """Mutated checkpoints of every layout; an answer names the labels and is equal in a batch."""
    folders = seeds.write_checkpoints(place) if not place.is_dir() else sorted(place.iterdir())
    clip, other = seeds.voice(0.6), seeds.voice(0.4, seed=1)

    def run(dice: random.Random, case: Path) -> tuple[str, str]:
        folder = seeds.choose(folders, dice)
        shutil.copytree(folder, case)
        done = f"{folder.name}: {mutations.mutate_folder(case, dice)}"
        try:
            opened = EmotionClassifier.from_pretrained(case, backend="torch", device="cpu")
            scores = _answer(opened, clip, sampling_rate=seeds.RATE)
            batch = opened.predict_batch([other, clip], sampling_rate=seeds.RATE)
        except EmoserError:
            return "refused", done
        if not _is_sound(opened, scores):
            return "wrong answer", done
        if _differ(scores, {**batch[1].scores, **(batch[1].dimensions or {})}):
            return "wrong answer", f"{done}: alone and in a batch differ"
        return "answered", done

    return run


def exports(place: Path) -> Case:
    """Mutated exported folders, and entries of the cache: the first answer, or none."""
    known = ["onnx", "openvino"]
    folders = (
        seeds.write_graphs(place)
        if not place.is_dir()
        else [place / name for name in known if (place / name).is_dir()]
    )
    clip = seeds.voice(0.6)
    cache = place / "cache"

    def open_on(folder: Path, backend: str) -> dict[str, float]:
        opened = EmotionClassifier.from_pretrained(folder, backend=backend, device="cpu")
        return _answer(opened, clip, sampling_rate=seeds.RATE)

    os.environ["EMOSER_CACHE"] = str(cache)
    expected = open_on(place / "model", "torch")
    entries = {}
    for folder in folders:
        before = set((cache / "graphs").iterdir()) if (cache / "graphs").is_dir() else set()
        open_on(place / "model", folder.name)
        found = set((cache / "graphs").iterdir())
        entries[folder.name] = next(iter(found - before), None)

    def run(dice: random.Random, case: Path) -> tuple[str, str]:
        folder = seeds.choose(folders, dice)
        cached = dice.random() < 0.5 and entries[folder.name] is not None
        if cached:
            shutil.copytree(cache, case)
            os.environ["EMOSER_CACHE"] = str(case)
            mutant = case / "graphs" / entries[folder.name].name
        else:
            shutil.copytree(folder, case)
            mutant = case
        done = f"{'cached' if cached else 'exported'} {folder.name}: "
        done += mutations.mutate_folder(mutant, dice)
        try:
            scores = open_on(place / "model" if cached else case, folder.name)
        except EmoserError:
            return ("wrong answer" if cached else "refused"), done
        return ("wrong answer" if _differ(scores, expected) else "answered"), done

    return run


PARTS: dict[str, Callable[[Path], Case]] = {
    "audio": audio,
    "checkpoints": checkpoints,
    "exports": exports,
}


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
