"""Runs the demo: `python -m tests.demo`."""

import sys

from tests.demo.demo import main

sys.exit(main())
