"""Lets the tests of the base model share `base_kit`, which their helper processes import as well."""

import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))

from base_kit import TINY, some_documents  # from the path above

from base_model import tokenizer as tokenizing


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return tokenizing.train((d.text for d in some_documents()), TINY.vocabulary)
