"""Readers of corpora: a folder or a table in, utterances out.

One module per corpus with `read(root)`, which owns the codes of its corpus. No audio is decoded.
"""

from importlib import import_module
from pathlib import Path

from emoser.finetune.data.utterance import Utterance
from emoser.finetune.settings import AUTO, TARGETS
from emoser.text import join_words

READERS = (
    "iemocap", "ravdess", "cremad", "emodb", "savee", "tess", "nemo", "esd", "meld", "msp-podcast",
    "jl",
)  # fmt: skip
"""Names of the corpora; the module of each has its name, with an underscore for a hyphen."""

RATED = ("iemocap", "msp-podcast")
"""Those with arousal, dominance and valence."""


def read_corpus(
    corpus: str | Path,
    *,
    root: str | Path | None = None,
    check_files: bool = True,
    scale: tuple[float, float] | None = None,
    targets: str = AUTO,
) -> list[Utterance]:
    r"""Utterances of a named corpus, or of a table of one's own.

    Args:
        corpus: A name ("iemocap", "ravdess", "cremad", "emodb", "savee", "tess", "nemo", "esd",
            "meld", "msp-podcast", "jl"), a table (CSV, JSON lines or Parquet), or a folder with
            `metadata.csv` or `metadata.jsonl` like the audio folders of `datasets`.
        root: Folder of the named corpus; for a table, the folder of relative paths.
        check_files: Whether to refuse a table with recordings that do not exist.
        scale: Lowest and highest value of the columns arousal, dominance and valence of a table;
            None if not known. Named corpora have their own.
        targets: Which recordings count, as in `FinetuneConfig`: with "dimensions" all that have
            values of arousal, dominance or valence, whatever their label; with "labels" and "auto"
            those with a label, if there are labels. A table is read for what is named here alone.

    Raises:
        FileNotFoundError: If recordings are missing, all in one message.
        ValueError: If a named corpus is given without its root or has not the targets, or a table
            is broken.
        DependencyError: If a package that reads the table is not installed.

    Example:
        >>> import tempfile
        >>> file = Path("examples/audio/slow.ogg").resolve()
        >>> with tempfile.TemporaryDirectory() as place:
        ...     table = Path(place, "calls.csv")
        ...     _ = table.write_text("\n".join(["path,label", f"{file},sad"]))
        ...     [item.label for item in read_corpus(table)]
        ['sad']
    """
    if targets not in TARGETS:
        raise ValueError(f"targets is {targets!r}, allowed are {', '.join(TARGETS)}")
    if str(corpus) not in READERS:
        from emoser.finetune.corpora import table  # needs NumPy, which `--help` does not wait for

        return table.read(corpus, root=root, check_files=check_files, scale=scale, targets=targets)
    if scale is not None:
        raise ValueError(f"the corpus {corpus} has its own scale; leave scale= (--scale) out")
    if root is None:
        raise ValueError(f"the corpus {corpus} needs root=, the folder that it is in")
    if targets == "dimensions" and corpus not in RATED:
        raise ValueError(
            f"the corpus {corpus} has no arousal, dominance or valence; of the named corpora "
            f"{join_words(RATED)} have them"
        )
    reader = import_module(f"emoser.finetune.corpora.{str(corpus).replace('-', '_')}")
    options = {"targets": targets} if corpus in RATED else {}
    utterances: list[Utterance] = reader.read(root, **options)
    return utterances
