"""`python -m glassgpt` is `glassgpt`."""

import sys

from glassgpt.cli.main import main

sys.exit(main())
