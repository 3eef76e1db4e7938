"""`python -m tests.testbed`: builds the test bed if need be, and prints its directory as the last line."""

import os
import sys

from tests.testbed import BedError
from tests.testbed.build import ensure


def main() -> int:
    """Progress and reasons go to stderr, the directory to stdout."""
    try:
        print(ensure(os.environ))
    except BedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
