"""`emoser predict --turns` and `--diarize`: print one row per turn of a conversation."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emoser.cli.options import open_classifier, open_source, select
from emoser.errors import AudioError
from emoser.json_text import format_json
from emoser.text import counted, printable

if TYPE_CHECKING:
    from emoser.results.conversation import Conversation

TURN_WRITERS: Mapping[str, "Callable[[Conversation], str]"] = {
    "srt": lambda conversation: conversation.to_srt(),
    "vtt": lambda conversation: conversation.to_webvtt(),
    "rttm": lambda conversation: conversation.to_rttm(),
    "textgrid": lambda conversation: conversation.to_textgrid(),
}


def run_turns(options: argparse.Namespace) -> int:
    """Predict the turns of one recording; returns 3 if a turn has no answer."""
    name = options.files[0]
    if len(options.files) != 1 or Path(name).is_dir():
        raise ValueError("--turns and --diarize take one recording")
    if options.top_k or options.start is not None or options.end is not None:
        raise ValueError("--top-k, --start and --end cannot be combined with turns")
    conversation = open_classifier(options).predict_turns(
        open_source(name),
        options.turns,
        progress=True,
        on_error="return",
        **select(options, "channel", "batch_seconds", "vad", "adapt_speakers"),
    )
    if conversation.failure is not None:
        raise conversation.failure
    if options.plot:
        conversation.plot(options.plot, theme=options.theme)
    write = _choose_writer(options)
    print(write(conversation), end="")
    if write is not _table:  # which ends with the summary
        for speaker, adaptation in conversation.adaptations.items():
            print(f"emoser: {printable(f'{speaker}: {adaptation}')}", file=sys.stderr)
    if errors := conversation.errors:
        count = counted(len(conversation), "turn")
        print(f"emoser: {len(errors)} of {count} could not be predicted", file=sys.stderr)
    return AudioError.exit_code if errors else 0


def _choose_writer(options: argparse.Namespace) -> "Callable[[Conversation], str]":
    if options.json:
        return _json_lines
    if options.csv:
        return lambda conversation: conversation.to_csv()
    return TURN_WRITERS.get(options.format, _table)


def _json_lines(conversation: "Conversation") -> str:
    return "".join(
        f"{format_json({'source': conversation.source, **turn.to_dict()})}\n"
        for turn in conversation
    )


def _table(conversation: "Conversation") -> str:
    """One line per turn, then one per speaker."""
    lines = [*conversation.turns, *conversation.summary().values()]
    return "".join(f"{printable(str(line))}\n" for line in lines)
