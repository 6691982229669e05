"""`python -m sam2long.cli`: the command without its entry point."""

import sys

from sam2long.cli import main

sys.exit(main())
