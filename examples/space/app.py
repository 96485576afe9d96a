"""A Space on the Hub with the page of `emoser demo`; `python app.py` serves it locally."""

from emoser.demo import DemoOptions, serve

OPTIONS = DemoOptions(
    models=("emoser-tiny", "superb/hubert-base-superb-er"), host="0.0.0.0", max_megabytes=100
)

if __name__ == "__main__":
    serve(OPTIONS, announce=print)
