"""`python -m lcg`."""

import sys

if __name__ == "__main__":
    # -m puts the current folder first on the path; a file there must not shadow anything we import.
    if not sys.flags.safe_path:
        sys.path.append(sys.path.pop(0))
    from lcg.cli import main

    sys.exit(main())
