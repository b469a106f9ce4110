"""`python -m citybrain`, the same as the `citybrain` command."""

from citybrain.cli.main import main

if __name__ == "__main__":
    main()
