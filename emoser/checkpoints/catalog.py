"""Short names of published checkpoints, and facts about them.

Compiled from the cards, configurations and discussions of the checkpoints. No entry was compared
with the live Hub (see `checked`); what a checkpoint holds is read from its files when it is
loaded. A figure is a claim of its authors and comes with their protocol, which is often not
speaker-independent.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

RECIPE_ENCODERS: Mapping[str, str] = {
    "w2v-base": "facebook/wav2vec2-base",
    "w2v-base-960h": "facebook/wav2vec2-base-960h",
    "w2v-large": "facebook/wav2vec2-large",
    "w2v-large-960h": "facebook/wav2vec2-large-960h",
    "hbt-base": "facebook/hubert-base-ls960",
    "hbt-large": "facebook/hubert-large-ll60k",
    "hbt-large-960h": "facebook/hubert-large-ls960-ft",
}
"""Encoders of the recipes of arXiv 2111.02735, by the recipe's name without its prefix."""
RECIPE_PREFIXES = ("EF-", "PF-", "Frozen-")
FOUR_SUPERB = ("neutral", "happy", "angry", "sad")
EIGHT = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SEVEN = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
ODYSSEY = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")
EMOTION2VEC = (
    "angry", "disgust", "fear", "happy", "neutral", "other", "sad", "surprise", "unknown",
)  # fmt: skip
DIMENSIONAL = ("arousal", "dominance", "valence")


@dataclass(frozen=True)
class Entry:
    """A published checkpoint.

    Attributes:
        name: Short name, accepted instead of the id.
        id: Owner and name on the Hub.
        layout: Layout of the files, as in `ModelInfo.layout`.
        encoder: Architecture of the encoder.
        labels: Canonical names in the order of the logits.
        licence: Licence of the weights.
        megabytes: Approximate size of the weights; None if not known.
        trained_on: Training corpora.
        claim: Figure that the authors state; "" if they state none.
        protocol: Protocol of that figure.
        caution: What to know before using the checkpoint.
        checked: Whether the entry was compared with the live Hub.
    """

    name: str
    id: str
    layout: str
    encoder: str
    labels: tuple[str, ...]
    licence: str
    megabytes: int | None = None
    trained_on: str = ""
    claim: str = ""
    protocol: str = ""
    caution: str = ""
    checked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


CATALOG = (
    Entry(
        "speechbrain-iemocap",
        "speechbrain/emotion-recognition-wav2vec2-IEMOCAP",
        "speechbrain",
        "wav2vec2-base",
        ("neutral", "angry", "happy", "sad"),
        "apache-2.0",
        378,
        "IEMOCAP",
        "78.7 % accuracy (mean 75.3 %)",
        "IEMOCAP four classes, one random split with speakers in common",
    ),
    Entry(
        "speechbrain-diarization",
        "speechbrain/emotion-diarization-wavlm-large",
        "speechbrain",
        "wavlm-large",
        ("angry", "neutral", "happy", "sad"),
        "apache-2.0",
        1_260,
        "IEMOCAP, RAVDESS, JL-corpus, ESD, EmoV-DB (concatenated)",
        "29.7 % emotion diarization error",
        "ZED test set",
        "trained with one non-neutral event per recording",
    ),
    *(
        Entry(
            f"superb-{encoder}",
            f"superb/{encoder}-superb-er",
            "transformers",
            encoder,
            FOUR_SUPERB,
            "apache-2.0",
            megabytes,
            "IEMOCAP",
            claim,
            "SUPERB: IEMOCAP four classes, leave one session out; the fold of this file is not "
            "stated",
            "never report IEMOCAP numbers with it: the training sessions are unknown",
        )
        for encoder, megabytes, claim in (
            ("wav2vec2-base", 378, "63.43 % accuracy"),
            ("hubert-base", 378, "64.92 % accuracy"),
            ("hubert-large", 1_260, "67.62 % accuracy"),
            ("wav2vec2-large", 1_260, "65.64 % accuracy"),
        )
    ),
    Entry(
        "ehcalabres",
        "ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition",
        "ehcalabres",
        "wav2vec2-large-xlsr",
        EIGHT,
        "apache-2.0",
        1_260,
        "RAVDESS",
        "82.23 % accuracy",
        "RAVDESS, random split with speakers in common",
        "the activation inside its head is not documented; emoser takes none",
    ),
    Entry(
        "r-f",
        "r-f/wav2vec-english-speech-emotion-recognition",
        "ctc",
        "wav2vec2-large-xlsr",
        SEVEN,
        "apache-2.0",
        1_260,
        "SAVEE, RAVDESS, TESS",
        "97.46 % accuracy",
        "random split of the three corpora, speakers in common (TESS has two)",
    ),
    Entry(
        "aesdd",
        "harshit345/xlsr-wav2vec-speech-emotion-recognition",
        "soxan",
        "wav2vec2-large-xlsr",
        ("angry", "disgust", "fear", "happy", "sad"),
        "apache-2.0",
        1_260,
        "AESDD (Greek)",
    ),
    Entry(
        "audeering-dimensions",
        "audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim",
        "soxan",
        "wav2vec2-large-robust, 12 layers",
        DIMENSIONAL,
        "cc-by-nc-sa-4.0",
        661,
        "MSP-Podcast 1.7",
        "valence 0.638 concordance",
        "MSP-Podcast test set 1",
        "non-commercial",
    ),
    *(
        Entry(
            f"odyssey-{name.lower()}",
            f"3loi/SER-Odyssey-Baseline-WavLM-{name}",
            "odyssey",
            "wavlm-large",
            labels,
            "mit",
            1_270,
            "MSP-Podcast 1.11",
            caution="trained on at most 12 s",
        )
        for name, labels in (
            ("Categorical", ODYSSEY),
            ("Multi-Attributes", DIMENSIONAL),
            ("Arousal", ("arousal",)),
            ("Dominance", ("dominance",)),
            ("Valence", ("valence",)),
        )
    ),
    Entry(
        "vox-profile",
        "tiantiaf/wavlm-large-categorical-emotion",
        "vox-profile",
        "wavlm-large with adapters",
        ("angry", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise", "other"),
        "rail (non-commercial)",
        trained_on="MSP-Podcast and others",
        caution="non-commercial; 3 to 15 s",
    ),
    Entry(
        "whisper-emotion",
        "firdhokk/speech-emotion-recognition-with-openai-whisper-large-v3",
        "transformers",
        "whisper-large-v3",
        SEVEN,
        "apache-2.0",
        2_550,
        "RAVDESS, SAVEE, TESS, URDU",
        "91.99 % accuracy",
        "random split of mixed acted corpora, speakers in common",
    ),
    *(
        Entry(
            f"emotion2vec-plus-{size}",
            f"emotion2vec/emotion2vec_plus_{size}",
            "emotion2vec",
            f"emotion2vec+ {size}",
            EMOTION2VEC,
            "model licence of FunASR",
            megabytes,
            "EmoBox and crawled speech labelled by itself",
            claim,
            "oruk-bench, 64 thousand clips in about 20 languages, zero-shot (not its authors)",
            "a pickle, read without running code",
        )
        for size, megabytes, claim in (
            ("seed", None, "68.7 % accuracy"),
            ("base", None, "68.5 % accuracy"),
            ("large", 1_950, "68.6 % accuracy"),
        )
    ),
    Entry(
        "dpngtm",
        "Dpngtm/wav2vec2-emotion-recognition",
        "transformers",
        "wav2vec2-base",
        EIGHT,
        "not stated",
        378,
        caution="the order of its labels was not written down; its configuration has it",
    ),
    Entry(
        "dunnbc22",
        "DunnBC22/wav2vec2-base-Speech_Emotion_Recognition",
        "transformers",
        "wav2vec2-base",
        ("sad", "angry", "disgust", "fear", "happy", "neutral"),
        "not stated",
        378,
        "CREMA-D",
    ),
)
"""Widely used checkpoints, in no particular order."""


def find_entry(name: str) -> Entry | None:
    """The entry with a short name, or None.

    Example:
        >>> find_entry("superb-hubert-large").id
        'superb/hubert-large-superb-er'
    """
    return next((entry for entry in CATALOG if entry.name == name), None)


def find_recipe(name: str) -> str | None:
    """The encoder that a recipe of the paper starts from, or None.

    Example:
        >>> find_recipe("PF-hbt-large")
        'facebook/hubert-large-ll60k'
    """
    for prefix in RECIPE_PREFIXES:
        if name.startswith(prefix):
            return RECIPE_ENCODERS.get(name.removeprefix(prefix))
    return None
