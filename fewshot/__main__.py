"""Runs the command line: python -m fewshot."""

from fewshot.commands import main

if __name__ == "__main__":
    main()
