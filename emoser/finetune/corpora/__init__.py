"""Readers of corpora: a folder or a table in, a list of utterances out.

One file per corpus with `read(root)`; each owns the codes of its corpus, none decodes audio.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from emoser.finetune.data.utterance import Utterance

READERS: Mapping[str, str] = {
    "iemocap": "iemocap",
    "ravdess": "ravdess",
    "cremad": "cremad",
    "emodb": "emodb",
    "savee": "savee",
    "tess": "tess",
    "nemo": "nemo",
    "esd": "esd",
    "meld": "meld",
    "msp-podcast": "msp_podcast",
    "jl": "jl",
}
"""Names of the corpora, and the module of each reader."""


def read_corpus(corpus: str | Path, *, root: str | Path | None = None) -> list[Utterance]:
    r"""Utterances of a known corpus, or of a table of one's own.

    Args:
        corpus: A name ("iemocap", "ravdess", "cremad", "emodb", "savee", "tess", "nemo", "esd",
            "meld", "msp-podcast", "jl"), a CSV or JSONL file, or a folder with
            `metadata.csv` or `metadata.jsonl` as the audio folders of `datasets` have it.
        root: Folder of the named corpus; for a table the folder that its paths count from.

    Raises:
        FileNotFoundError: If recordings are missing, all in one message.
        ValueError: If a named corpus comes without its root, or a table is broken.

    Example:
        >>> import tempfile
        >>> file = Path("examples/audio/slow.ogg").resolve()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     table = Path(place, "calls.csv")
        ...     _ = table.write_text("\n".join(["path,label", f"{file},sad"]))
        ...     [item.label for item in read_corpus(table)]
        ['sad']
    """
    if str(corpus) in READERS:
        if root is None:
            raise ValueError(f"the corpus {corpus} needs root=, the folder that it is in")
        reader = import_module(f"emoser.finetune.corpora.{READERS[str(corpus)]}")
        utterances: list[Utterance] = reader.read(root)
        return utterances
    from emoser.finetune.corpora import table

    return table.read(corpus, root=root)
