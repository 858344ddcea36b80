"""`python -m nlmefit.cli`."""

import sys

from nlmefit.cli.main import main

sys.exit(main())
