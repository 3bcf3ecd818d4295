"""`python -m kernelsearch.cli`: the same as the command `kernelsearch`."""

from kernelsearch.cli import main

if __name__ == "__main__":
    main()
