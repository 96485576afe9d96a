"""Every layout gives the numbers of the code that it comes from, alone and in a batch."""

import importlib

import pytest
import torch
from genuine import CASES, NEEDS
from models import pad, random_clips

from emoser.checkpoints.layouts import load_checkpoint

LENGTHS = (16_000, 5_000, 30_000, 9_999)
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """A folder and a reference for each name, written when first asked for."""
    made = {}

    def write(name):
        if name not in made:
            if name in NEEDS:
                pytest.importorskip(NEEDS[name], exc_type=ImportError)
            folder = tmp_path_factory.mktemp("checkpoint") / "model"
            made[name] = folder, CASES[name](folder)
        return made[name]

    return write


@pytest.mark.parametrize("name", CASES)
def test_a_layout_gives_the_numbers_of_its_authors_alone_and_in_a_batch(name, written):
    folder, reference = written(name)
    model = load_checkpoint(folder).model
    clips = random_clips(LENGTHS)
    with torch.inference_mode():
        expected = torch.stack([reference(clip) for clip in clips])
        alone = torch.cat([model(torch.from_numpy(clip)[None]).logits for clip in clips])
        batched = model(*pad(clips)).logits
    scale = max(float(expected.abs().max()), 1.0)
    print(
        f"{name}: scale {scale:.2f}, alone {(alone - expected).abs().max():.1e}, "
        f"batched {(batched - expected).abs().max():.1e}"
    )
    assert expected.std(dim=0).max() > 0.01 * scale, "the clips must differ"
    assert (alone - expected).abs().max() <= TOLERANCE * scale
    assert (batched - expected).abs().max() <= TOLERANCE * scale
