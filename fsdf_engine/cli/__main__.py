"""`python -m fsdf_engine.cli` is the command `fsdf`."""

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
