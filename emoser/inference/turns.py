"""The turns of a conversation, predicted in one pass over the recording."""

import math
from dataclasses import replace

from tqdm import tqdm

from emoser.audio import Source, describe_source
from emoser.audio.blocks import check_channel
from emoser.errors import EmoserError, TurnsError
from emoser.inference.pieces import Piece
from emoser.inference.pipeline import EACH_CHANNEL
from emoser.inference.predictor import BatchOptions, Predictor
from emoser.results.conversation import Conversation
from emoser.results.prediction import Prediction
from emoser.results.transcripts.reading import Turns, read_turns
from emoser.results.turns import OUT_OF_RANGE, OVERLAP, Turn, find_overlaps

ROUNDING_SECONDS = 0.05  # by which the end of a turn may lie after that of the recording


def predict_turns(
    predictor: Predictor,
    source: Source,
    turns: Turns,
    options: BatchOptions,
    *,
    progress: bool = False,
) -> Conversation:
    """The turns of a recording with their predictions, in the order given.

    With channel "each", every turn is taken from its own channel.

    Raises:
        AudioError: If the recording, or a turn of it, cannot be read and errors are not returned.
        TurnsError: Likewise, if a turn is empty or its times are no numbers.
        ValueError: If channel is "each" and a turn has no channel, or as for `predict`.
    """
    turns = read_turns(turns, recording=describe_source(source))
    by_channel = options.channel == EACH_CHANNEL
    if not by_channel:
        check_channel(options.channel)
    elif unplaced := sum(turn.channel is None for turn in turns):
        raise ValueError(
            f"channel is 'each', and {unplaced} of {len(turns)} turns have no channel; add it to "
            "the turns, or choose one channel for all"
        )
    overlaps = find_overlaps(turns, by_channel=by_channel)
    answers: dict[int, Prediction | EmoserError] = {}
    for place, turn in enumerate(turns):
        if fault := _find_fault(place, turn):
            if options.on_error == "raise":
                raise fault
            answers[place] = fault
    places = [place for place in range(len(turns)) if place not in answers]
    pieces = [
        Piece(turn.start, turn.end, turn.channel if by_channel else None)
        for turn in (turns[place] for place in places)
    ]
    options = replace(options, channel="mix") if by_channel else options
    found = predictor.predict_pieces(source, pieces, options)
    hidden = None if progress else True
    for number, answer in tqdm(found, total=len(pieces), unit="turn", disable=hidden):
        answers[places[number]] = answer
    return Conversation(
        tuple(_answer(turn, answers[place], overlaps[place]) for place, turn in enumerate(turns)),
        predictor.labels,
        predictor.dimensions,
        predictor.scorer.model,
        describe_source(source),
    )


def _find_fault(place: int, turn: Turn) -> TurnsError | None:
    times = f"from {turn.start:g} to {turn.end:g} s"
    if not math.isfinite(turn.start) or not math.isfinite(turn.end):
        return TurnsError(f"turn {place + 1} goes {times}; its times must be numbers of seconds")
    if turn.end <= turn.start:
        return TurnsError(
            f"turn {place + 1} is empty: it goes {times}; correct its end or leave it out"
        )
    if turn.end <= 0:
        return TurnsError(f"turn {place + 1} goes {times}, before the recording; correct its times")
    return None


def _answer(turn: Turn, answer: Prediction | EmoserError, overlaps: bool) -> Turn:
    flags = (OVERLAP,) if overlaps else ()
    if isinstance(answer, EmoserError):
        return replace(turn, prediction=None, error=answer, flags=flags)
    if turn.start < 0 or answer.duration < turn.end - max(turn.start, 0.0) - ROUNDING_SECONDS:
        flags = (*flags, OUT_OF_RANGE)
    return replace(turn, prediction=answer, error=None, flags=flags)
