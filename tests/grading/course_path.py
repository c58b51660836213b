"""Import this first, and the modules beside it run as programs, too: the course and its tests can be imported."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

for folder in (ROOT / "tests", ROOT):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
