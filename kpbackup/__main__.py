"""`python -m kpbackup` is the program `kpbackup`."""

import sys

from kpbackup.cli import main

sys.exit(main.main())
