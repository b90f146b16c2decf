"""`python -m vipocc`: the same as the `vipocc` script."""

from vipocc.cli import main

if __name__ == "__main__":
    main()
