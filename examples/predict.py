"""Predict the emotion of one recording: `python examples/predict.py [FILE]`."""

import sys
from pathlib import Path

from emoser import EmotionClassifier

file = sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "audio" / "loud.flac"

classifier = EmotionClassifier.from_pretrained()
prediction = classifier.predict(file)
print(prediction)
print(prediction.table())
