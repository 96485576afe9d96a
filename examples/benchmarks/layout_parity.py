"""Print the difference between emoser and the original code of each checkpoint layout.

    python examples/benchmarks/layout_parity.py [--markdown]

Checkpoints with random weights are written by transformers, SpeechBrain, FunASR and loralib
themselves, or follow the published description of their head. Four clips of different lengths are
predicted one by one and as a padded batch; the reference is the original code with single clips.
Layouts whose package is not installed are reported and left out.
"""

import argparse
import sys
import tempfile
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

LENGTHS = (16_000, 5_000, 30_000, 9_999)


def measure(name: str, folder: Path) -> tuple[str, float, float, float]:
    """Layout, largest logit, and largest difference for single clips and for the batch."""
    from support.models import pad, random_clips
    from support.reference_checkpoints import CASES

    from emoser.checkpoints.layouts.registry import load_checkpoint

    reference = CASES[name](folder)
    loaded = load_checkpoint(folder)
    clips = random_clips(LENGTHS)
    with torch.inference_mode():
        expected = torch.stack([reference(clip) for clip in clips])
        alone = torch.cat([loaded.model(torch.from_numpy(clip)[None]).logits for clip in clips])
        batched = loaded.model(*pad(clips)).logits
    single, together = (float((found - expected).abs().max()) for found in (alone, batched))
    return loaded.layout, float(expected.abs().max()), single, together


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    from support.reference_checkpoints import CASES, NEEDS

    row = (
        "| {:<32} | {:<12} | {:>13} | {:>9} | {:>9} |"
        if options.markdown
        else "{:<32} {:<12} {:>13} {:>9} {:>9}"
    )
    print(row.format("checkpoint", "layout", "largest logit", "single", "batched"))
    if options.markdown:
        print(row.format("---", "---", "---:", "---:", "---:"))
    for name in CASES:
        with tempfile.TemporaryDirectory() as place:
            try:
                with redirect_stdout(sys.stderr):  # funasr prints while it is imported
                    import_module(NEEDS.get(name, "torch"))
                    layout, scale, alone, batched = measure(name, Path(place) / "model")
            except ImportError as error:
                print(f"{name}: left out, {error}", file=sys.stderr)
                continue
        print(row.format(name, layout, f"{scale:.2f}", f"{alone:.1e}", f"{batched:.1e}"))


if __name__ == "__main__":
    main()
