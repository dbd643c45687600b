"""The tokenizer: byte-level BPE trained on the base corpus alone, in Hugging Face format.

Decides the vocabulary. Digits are single tokens; every text comes back byte for byte. Trains without
randomness, so one corpus gives one vocabulary. The tokens of series come after those of text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

from base_model import offline  # noqa: F401  # switches the hub off
from base_model.series import BINS, Vocabulary
from fedproto.errors import LocalFault

BOS, EOS, PAD = 0, 1, 2
SPECIAL = ("<bos>", "<eos>", "<pad>")
VOCABULARY = 4096
FILE = "tokenizer.json"


def train(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Train a tokenizer with a GPT-2 style pre-tokeniser."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # The words "<bos>" in a document are text: only we begin a document.
    tokenizer.encode_special_tokens = True
    return tokenizer


def with_series(tokenizer: Tokenizer, bins: int = BINS) -> Vocabulary:
    """Add the tokens of series after those of text, and return where they stand."""
    vocabulary = Vocabulary(first=tokenizer.get_vocab_size(), bins=bins)
    tokenizer.add_special_tokens(list(vocabulary.words))
    return vocabulary


def series_vocabulary(tokenizer: Tokenizer) -> Vocabulary | None:
    """Return where a tokenizer has its tokens of series, or nothing if it has none."""
    first = tokenizer.token_to_id("<series>")
    if first is None:
        return None
    marks = Vocabulary(first=first, bins=0).size
    return Vocabulary(first=first, bins=tokenizer.get_vocab_size() - first - marks)


@dataclass(frozen=True, slots=True)
class HeaderText:
    """How a tokenizer writes the header of a series."""

    tokenizer: Tokenizer

    def ids(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return list(self.tokenizer.encode(text).ids)

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens."""
        return str(self.tokenizer.decode(list(ids)))


def load(directory: Path) -> Tokenizer:
    """Read the tokenizer of a base model directory; raise RNM-MODEL-0003 if it has none.

    Verify the release first (`weights.verify`): a damaged file is refused there, by its digest.
    """
    path = directory / FILE
    if not path.is_file():
        raise LocalFault(
            "RNM-MODEL-0003",
            what=f"no tokenizer in {directory}",
            why=f"{FILE} is missing",
            mend="fetch the base model again: the node does so by itself when a run starts",
        )
    tokenizer = Tokenizer.from_file(str(path))
    # Not kept in the file.
    tokenizer.encode_special_tokens = True
    return tokenizer


def save(tokenizer: Tokenizer, directory: Path) -> None:
    """Write the tokenizer so that `AutoTokenizer.from_pretrained` reads it without the hub."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        pad_token=SPECIAL[2],
        split_special_tokens=True,
    )
    wrapped.save_pretrained(directory)
