"""Let `python -m peftkit` do what `peftkit` does."""

from peftkit.cli import main

if __name__ == "__main__":
    main()
