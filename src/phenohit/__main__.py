"""`python -m phenohit` is the `phenohit` command."""

import sys

from phenohit.cli import main

sys.exit(main())
