"""Lets the tests of the ledger share `ledger_kit`, which their helper processes import as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
