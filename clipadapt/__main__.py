"""`python -m clipadapt` is `clipadapt`."""

import sys

from clipadapt.cli import main

sys.exit(main())
