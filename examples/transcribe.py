"""Transcribe with faster-whisper for `emoser predict --turns`: FILE [MODEL] > call.json.

Needs `pip install faster-whisper`, which downloads the model when it is first used.
"""

import json
import sys


def main(file: str, model: str = "small") -> None:
    """Print one JSON object per segment."""
    from faster_whisper import WhisperModel

    segments, _ = WhisperModel(model).transcribe(file)
    for segment in segments:
        print(json.dumps({"start": segment.start, "end": segment.end, "text": segment.text}))


if __name__ == "__main__":
    main(*sys.argv[1:])
