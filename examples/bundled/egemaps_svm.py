"""The classic baseline: 88 eGeMAPS statistics of each recording and a linear SVM.

openSMILE, whose licence is limited to research, is only used for this comparison; `emoser` never
imports it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emoser.audio import load_audio
from emoser.finetune import Utterance

SAMPLING_RATE = 16_000
COSTS = (0.001, 0.003, 0.01, 0.03, 0.1)
INNER_FOLDS = 4


def has_opensmile() -> bool:
    """Whether openSMILE is installed."""
    try:
        import opensmile  # noqa: F401
    except ImportError:
        return False
    return True


def describe(utterances: Sequence[Utterance], file: Path) -> dict[str, NDArray[np.float32]]:
    """The statistics of every recording by its path, cached in a file."""
    kept: dict[str, NDArray[np.float32]] = {}
    if file.is_file():
        with np.load(file) as stored:
            kept = dict(zip(stored["paths"].tolist(), stored["features"], strict=True))
    missing = [item.path for item in utterances if item.path not in kept]
    if missing:
        import opensmile

        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02)
        for path in missing:
            kept[path] = smile.process_signal(load_audio(path), SAMPLING_RATE).to_numpy()[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, paths=np.array(list(kept)), features=np.stack(list(kept.values())))
    return kept


def recognise(
    training: Sequence[Utterance],
    test: Sequence[Utterance],
    features: dict[str, NDArray[np.float32]],
    labels: Sequence[str],
) -> NDArray[np.float32]:
    """Predictions of the SVM for the test recordings, one-hot, (N, C).

    Features are standardised on the training recordings, classes have equal weights, and the cost
    is chosen by cross-validation over the training speakers.
    """
    from sklearn.model_selection import GridSearchCV, GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    known = [item for item in training if item.label in labels]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), SVC(kernel="linear", class_weight="balanced")),
        {"svc__C": COSTS},
        scoring="balanced_accuracy",
        cv=GroupKFold(INNER_FOLDS),
    )
    search.fit(
        np.stack([features[item.path] for item in known]),
        [item.label for item in known],
        groups=[f"{item.corpus}/{item.speaker}" for item in known],
    )
    predicted = search.predict(np.stack([features[item.path] for item in test]))
    return np.array([[label == name for label in labels] for name in predicted], dtype=np.float32)
