"""Results as columns: of a pandas DataFrame, or of a batch of rows of `datasets`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emoser.errors import DependencyError, EmoserError
from emoser.results.prediction import Prediction
from emoser.results.timeline import Timeline
from emoser.results.turns import Turn

if TYPE_CHECKING:
    import pandas

SOURCES = ("audio", "path", "file", "audio_filepath")  # names of a column of recordings


def to_frame(
    answers: Timeline | Iterable[Prediction | EmoserError | Turn],
) -> "pandas.DataFrame":
    """Predictions, segments of a timeline or turns as a pandas DataFrame, one row each.

    The columns of predictions are those of `Prediction.to_dict(flat=True)`; a returned error has
    its message in the column "error". Segments have start, end, channel, kind, label, score and
    a column per label and dimension; turns start, end, speaker, text, channel, label, score, these
    columns, quality and error.

    Args:
        answers: Predictions or errors, a timeline, a conversation, or some of its turns.

    Raises:
        DependencyError: If pandas is not installed.

    Example:
        >>> answers = [Prediction.from_scores({"sad": 1.0}, duration=2.5), EmoserError("no file")]
        >>> to_frame(answers)["label"].isna().tolist()
        [False, True]
    """
    try:
        import pandas
    except ImportError as error:
        raise DependencyError(
            "to_frame needs pandas; install it with: pip install pandas"
        ) from error
    if isinstance(answers, Timeline):
        return pandas.DataFrame(_segment_rows(answers))
    items = list(answers)
    turns = [item for item in items if isinstance(item, Turn)]
    if turns:
        return pandas.DataFrame(_turn_rows(turns))
    return pandas.DataFrame([_row(item) for item in items if not isinstance(item, Turn)])


def as_columns(
    answers: Sequence[Prediction | EmoserError], labels: Sequence[str]
) -> dict[str, list[Any]]:
    """The predictions of a batch of rows, as the columns that `datasets` adds to it.

    A missing text is "" and a missing number NaN, since the type of a column must not depend on
    the batch.

    Example:
        >>> list(as_columns([EmoserError("no file")], ["sad"]).items())[2:]
        [('emotion_sad', [nan]), ('emotion_error', ['no file'])]
    """
    found = [answer if isinstance(answer, Prediction) else None for answer in answers]
    values = [{**item.scores, **(item.dimensions or {})} if item else {} for item in found]
    scores = [item.score if item else None for item in found]
    return {
        "emotion": [(item.label if item else None) or "" for item in found],
        "emotion_score": [math.nan if score is None else score for score in scores],
        **{f"emotion_{label}": [row.get(label, math.nan) for row in values] for label in labels},
        "emotion_error": [
            str(answer) if isinstance(answer, EmoserError) else "" for answer in answers
        ],
    }


def find_sources(rows: Mapping[str, Any]) -> list[Any]:
    """The recordings of a batch of rows: its column "audio", "path", "file" or "audio_filepath".

    Raises:
        ValueError: If the rows have none of them.
    """
    name = next((name for name in SOURCES if name in rows), None)
    if name is None:
        raise ValueError(
            f"the rows have the columns {', '.join(map(str, rows))}; one with the recordings must "
            f"be called {' or '.join(SOURCES)}"
        )
    return list(rows[name])


def _row(answer: Prediction | EmoserError) -> dict[str, Any]:
    if isinstance(answer, EmoserError):
        return {"error": str(answer)}
    return answer.to_dict(flat=True)


def _turn_rows(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    labels = dict.fromkeys(label for turn in turns for label in turn.scores)
    dimensions = dict.fromkeys(name for turn in turns for name in turn.dimensions)
    return [
        {
            "start": turn.start,
            "end": turn.end,
            "speaker": turn.speaker,
            "text": turn.text,
            "channel": turn.channel,
            "label": turn.label,
            "score": turn.score,
            **{f"score_{name}": turn.scores.get(name) for name in labels},
            **{f"dimension_{name}": turn.dimensions.get(name) for name in dimensions},
            "quality": " ".join(turn.quality),
            "error": None if turn.error is None else str(turn.error),
        }
        for turn in turns
    ]


def _segment_rows(timeline: Timeline) -> list[dict[str, Any]]:
    return [
        {
            "start": segment.start,
            "end": segment.end,
            "channel": segment.channel,
            "kind": segment.kind,
            "label": segment.label,
            "score": segment.score,
            **{f"score_{name}": (segment.scores or {}).get(name) for name in timeline.labels},
            **{
                f"dimension_{name}": (segment.dimensions or {}).get(name)
                for name in timeline.dimensions
            },
        }
        for segment in timeline.segments
    ]
