"""Speed of the dense CRF beside pydensecrf: `unpool bench crf` on one thread.

usage: python benchmarks/bench_crf.py [options of `unpool bench crf`]
"""

import sys

from unpool.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "crf", "--threads", "1", *sys.argv[1:]]))
