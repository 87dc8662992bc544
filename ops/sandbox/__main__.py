"""`python -m ops.sandbox --help`."""

from ops.sandbox.server import main

if __name__ == "__main__":
    main()
