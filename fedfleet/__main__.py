"""Entry of ``python -m fedfleet``."""

from fedfleet.cli import main

if __name__ == "__main__":
    main()
