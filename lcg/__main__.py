"""`python -m lcg`."""

import sys

if __name__ == "__main__":
    # -m puts the current folder first on the path, where a user's own `tasks/` would shadow ours.
    if sys.path:
        sys.path.append(sys.path.pop(0))
    from lcg.cli import main

    sys.exit(main())
