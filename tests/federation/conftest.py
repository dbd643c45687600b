"""Lets the tests of the coordinator share `federation_kit`, which a helper process imports as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
