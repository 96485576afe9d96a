"""Predict the emotions of the recordings in a folder: `predict_folder.py [FOLDER]`."""

import sys
from pathlib import Path

from emoser import EmoserError, EmotionClassifier

folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "audio")
files = sorted(file for file in folder.rglob("*") if file.is_file())

classifier = EmotionClassifier.from_pretrained()
results = classifier.predict_batch(files, progress=True, on_error="return")
for file, result in zip(files, results, strict=True):
    shown = f"error: {result}" if isinstance(result, EmoserError) else result
    print(f"{file.relative_to(folder)}: {shown}")
