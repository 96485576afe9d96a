"""`python -m emoser`: the command line."""

import sys

from emoser.cli import main

sys.exit(main())
