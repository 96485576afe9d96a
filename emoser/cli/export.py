"""`emoser export`: write a checkpoint as a folder that runs without torch."""

import argparse
import json
from typing import Any

from emoser.checkpoints.resolve import find_checkpoint
from emoser.cli.options import add_options


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command to a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "export",
        help="write a checkpoint for ONNX Runtime or OpenVINO",
        description="Write a checkpoint as a folder that runs without torch. emoser loads it "
        "like any other (--model FOLDER). Its numbers are compared with those of the original "
        "before the folder appears.",
    )
    add_options(parser, "model", "folder", "--revision", "--overwrite", "--json")
    parser.add_argument("--to", default="onnx", help="onnx (default) or openvino")
    parser.add_argument(
        "--int8", action="store_true", help="8-bit integers; needs --calibrate and extra int8"
    )
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER",
        help="recordings to compare the numbers on; at least 100 for --int8",
    )
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Export and print the measured differences."""
    checkpoint = find_checkpoint(options.model, revision=options.revision)
    from emoser.export import export

    done = export(
        checkpoint,
        options.folder,
        to=options.to,
        int8=options.int8,
        calibrate=options.calibrate,
        overwrite=options.overwrite,
    )
    if options.json:
        print(json.dumps(done.to_dict()))
    else:
        same = f"{done.parity['agreement']:.1%} of the labels the same, " if options.int8 else ""
        print(
            f"{options.model} -> {done.folder} ({done.format}, {done.dtype}, "
            f"{done.megabytes:.1f} MB); {same}largest difference of a logit "
            f"{done.parity['max_difference']:.1e} on {done.parity['num_clips']} clips"
        )
    return 0
