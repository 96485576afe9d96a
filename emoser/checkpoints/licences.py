"""Licences of weights: which of them bind the models that are tuned from these weights."""

import re
from typing import Any

from emoser.checkpoints.files import CheckpointFiles

UNSTATED = ("not-stated", "unknown")
PERMISSIVE = re.compile(
    r"apache-2\.0|mit|bsd.*|isc|zlib|unlicense|wtfpl|cc0-1\.0|cc-by-\d\.\d|pddl"
)
HUB = re.compile(
    r"(apache|artistic|afl|bsd|bsl|cc|cdla|creativeml|deepfloyd|ecl|epl|etalab|eupl|gemma|gpl|h-res"
    r"|intel|isc|lgpl|agpl|llama|lppl|mit|mpl|ms-pl|ncsa|odc|ofl|open|osl|pddl|postgresql|unlicense"
    r"|wtfpl|zlib)[\w.-]*"
)
"""Identifiers of licences that the Hub knows."""


def inherit_licence(base: CheckpointFiles) -> str | None:
    """The licence that a model tuned from a checkpoint is under; None if it may have its own.

    Every licence binds it but the permissive ones: those with conditions on derived works, such
    as non-commercial use or the same licence, and those that emoser does not know.

    Example:
        >>> from emoser.checkpoints.resolve import find_checkpoint
        >>> inherit_licence(find_checkpoint("emoser-tiny"))
        'cc-by-nc-sa-4.0'
    """
    licence = base.licence
    if licence is None or licence in UNSTATED or PERMISSIVE.fullmatch(licence.lower()):
        return None
    return licence


def licence_fields(licence: Any) -> dict[str, str]:
    """The fields of the front matter of a card that state a licence.

    Example:
        >>> licence_fields("mit"), licence_fields("research-only")
        ({'license': 'mit'}, {'license': 'other', 'license_name': 'research-only'})
    """
    if not licence:
        return {}
    name = str(licence)
    return {"license": name} if HUB.fullmatch(name) else {"license": "other", "license_name": name}
