"""Lets the tests of the base model share `base_kit`, which their helper processes import as well."""

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from base_kit import TINY, some_documents  # from the path above
from dataset_kit import OPTIONS, made_lock

from base_model import dataset
from base_model import tokenizer as tokenizing


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokenizing.train((d.text for d in some_documents()), TINY.vocabulary)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `renmei model data` builds of a small corpus."""
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("base_model.corpus.DOCSTRING_PACKAGES", ())
        dataset.build(made_lock(root), root, root / "out", OPTIONS)
    return root / "out"
