"""`python -m ropeway`: the same as the `ropeway` command."""

from ropeway.cli.main import main

if __name__ == "__main__":
    main()
