"""``python -m gsco`` is the command ``gsco``."""

from gsco.cli import main

if __name__ == "__main__":
    main()
