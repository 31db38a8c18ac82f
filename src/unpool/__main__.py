"""The command line as `python -m unpool`, and for `torchrun -m unpool`."""

import sys

from unpool.cli import main

if __name__ == "__main__":
    sys.exit(main())
