# PYTHON_ARGCOMPLETE_OK
"""`python -m relay_mp`: the command `relay-mp`."""

import sys

from relay_mp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
