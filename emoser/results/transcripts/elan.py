"""Turns from the annotation files of ELAN (EAF): each tier with times of its own is a speaker."""

import re
from xml.etree import ElementTree

from emoser.errors import TurnsError
from emoser.results.turns import Turn

ENTITY = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.I)  # whose expansion can fill the memory


def parse_elan(text: str) -> list[Turn]:
    """A turn for each annotation of the tiers without a parent, tier by tier.

    The participant of a tier is its speaker, or else its name.

    Raises:
        TurnsError: If it is another XML file, is damaged, or an annotation has no time.
    """
    if ENTITY.search(text):
        raise TurnsError("it declares a document type, which files of ELAN do not; save it again")
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise TurnsError(f"it is damaged XML ({error}); save it again") from error
    if root.tag != "ANNOTATION_DOCUMENT":
        raise TurnsError(f"it is XML of another kind ({root.tag[:40]}); ELAN's files are read")
    times = {
        slot.get("TIME_SLOT_ID"): float(slot.get("TIME_VALUE", "")) / 1000
        for slot in root.iterfind("TIME_ORDER/TIME_SLOT")
        if slot.get("TIME_VALUE", "").isdecimal()
    }
    turns: list[Turn] = []
    for tier in root.iterfind("TIER"):
        if tier.get("PARENT_REF") is not None:
            continue
        speaker = tier.get("PARTICIPANT") or tier.get("TIER_ID")
        for note in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
            start, end = (times.get(note.get(f"TIME_SLOT_REF{side}")) for side in (1, 2))
            if start is None or end is None:
                raise TurnsError(
                    f"annotation {note.get('ANNOTATION_ID')} of tier {tier.get('TIER_ID')} has no "
                    "time; align it in ELAN"
                )
            words = (note.findtext("ANNOTATION_VALUE") or "").split()
            turns.append(Turn(start, end, speaker, " ".join(words) or None))
    return turns
