"""Train a small model on the clips of a table; with `kills`, in children that are killed.

python tests/support/train_small.py TABLE FOLDER
"""

import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch


def run(table, folder):
    from emoser.finetune import Utterance, train
    from support.training import CONFIG, small_model

    wanted = json.loads(Path(table).read_text())
    changes = dict(wanted["changes"])
    changes.pop("kills", None)
    dropout = changes.pop("dropout", True)
    clips = [Utterance(path, label, speaker=who) for path, label, who in wanted["clips"]]
    training = [item for item in clips if item.speaker == "a"]
    validation = [item for item in clips if item.speaker == "b"]
    config = replace(CONFIG, mode="entire", save_every_steps=1, **changes)
    model = small_model(dropout=dropout)
    train(training, validation, model=model, config=config, output=folder, device="cpu")


def survive(table, folder, kills):
    """Kill a child at a random moment, again and again, then let one finish."""
    from support.training import small_model  # noqa: F401  # imports everything before forking

    generator = random.Random(0)
    killed = 0
    while True:
        child = os.fork()
        if child == 0:
            run(table, folder)
            os._exit(0)
        seconds = generator.uniform(0.2, 1.6) if killed < kills else 600.0
        status = wait(child, seconds)
        if status is not None:
            print(f"kills {killed} before the end")
            sys.exit(status)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1


def wait(child, seconds):
    """The exit status of a child, or None if it is still running after some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    return None


if __name__ == "__main__":
    torch.set_num_threads(1)
    kills = json.loads(Path(sys.argv[1]).read_text())["changes"].get("kills", 0)
    if kills:
        survive(sys.argv[1], sys.argv[2], kills)
    else:
        run(sys.argv[1], sys.argv[2])
