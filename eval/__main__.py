"""`python -m eval <command>`."""

import os
import sys

os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of sam2; ours stays

from eval.cli import main

if __name__ == "__main__":
    sys.exit(main())
