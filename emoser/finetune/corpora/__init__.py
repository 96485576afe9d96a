"""Readers of corpora: a folder or a table in, utterances out.

One module per corpus with `read(root)`, which owns the codes of its corpus. No audio is decoded.
"""

from importlib import import_module
from pathlib import Path

from emoser.finetune.data.utterance import Utterance

READERS = (
    "iemocap", "ravdess", "cremad", "emodb", "savee", "tess", "nemo", "esd", "meld", "msp-podcast",
    "jl",
)  # fmt: skip
"""Names of the corpora; the module of each has its name, with an underscore for a hyphen."""


def read_corpus(corpus: str | Path, *, root: str | Path | None = None) -> list[Utterance]:
    r"""Utterances of a named corpus, or of a table of one's own.

    Args:
        corpus: A name ("iemocap", "ravdess", "cremad", "emodb", "savee", "tess", "nemo", "esd",
            "meld", "msp-podcast", "jl"), a CSV or JSONL file, or a folder with
            `metadata.csv` or `metadata.jsonl` like the audio folders of `datasets`.
        root: Folder of the named corpus; for a table, the folder of relative paths.

    Raises:
        FileNotFoundError: If recordings are missing, all in one message.
        ValueError: If a named corpus is given without its root, or a table is broken.

    Example:
        >>> import tempfile
        >>> file = Path("examples/audio/slow.ogg").resolve()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     table = Path(place, "calls.csv")
        ...     _ = table.write_text("\n".join(["path,label", f"{file},sad"]))
        ...     [item.label for item in read_corpus(table)]
        ['sad']
    """
    named = str(corpus) in READERS
    if named and root is None:
        raise ValueError(f"the corpus {corpus} needs root=, the folder that it is in")
    name = str(corpus).replace("-", "_") if named else "table"
    reader = import_module(f"emoser.finetune.corpora.{name}")
    utterances: list[Utterance] = reader.read(root) if named else reader.read(corpus, root=root)
    return utterances
