"""A Space on the Hub with the page of `emoser demo`; `python app.py` serves it locally."""

import os

from emoser.demo import DemoOptions, serve

OPTIONS = DemoOptions(
    models=("emoser-tiny", "superb/hubert-base-superb-er"),
    host="0.0.0.0",
    allowed_hosts=(os.environ.get("SPACE_HOST", "localhost"),),  # the Hub sets it in a Space
    max_megabytes=100,
)

if __name__ == "__main__":
    serve(OPTIONS, announce=print)
