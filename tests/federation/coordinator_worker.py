"""A coordinator in a process of its own, to be killed: `python coordinator_worker.py DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from federation_kit import NoFlower

from federation.coordinator import serve

serve(Path(sys.argv[1]), lambda *_: NoFlower())
