"""`emoser export`: write a checkpoint as a folder that runs without torch."""

import argparse

from emoser.checkpoints.resolve import find_checkpoint
from emoser.cli.options import flag, select, shared, show, value
from emoser.json_text import format_json

DESCRIPTION = (
    "Write a checkpoint as a folder that runs without torch. emoser loads it like any other "
    "(--model FOLDER). Its numbers are compared with those of the original before the folder "
    "appears."
)
OPTIONS = {
    **shared("model", "folder", "--revision", "--overwrite", "--json"),
    "--to": {"default": "onnx", "help": "onnx (default) or openvino"},
    "--int8": flag("8-bit integers; needs --calibrate and extra int8"),
    "--calibrate": value(
        "recordings to compare the numbers on; at least 100 for --int8", metavar="FOLDER"
    ),
}


def run(options: argparse.Namespace) -> int:
    """Export and print the measured differences."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    from emoser.export import export

    settings = select(options, "to", "int8", "calibrate", "overwrite")
    done = export(checkpoint, options.folder, **settings)
    if options.json:
        print(format_json(done.to_dict()))
    else:
        same = f"{done.parity['agreement']:.1%} of the labels the same, " if options.int8 else ""
        line = (
            f"{options.model} -> {done.folder} ({done.format}, {done.dtype}, "
            f"{done.megabytes:.1f} MB); {same}largest difference of a logit "
            f"{done.parity['max_difference']:.1e} on {done.parity['num_clips']} clips"
        )
        show(line)
    return 0
