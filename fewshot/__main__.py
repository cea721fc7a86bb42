"""Runs the command line: python -m fewshot."""

from fewshot.cli import main

if __name__ == "__main__":
    main()
