"""Run the command line: `python -m product_gateway`."""

from product_gateway.cli.main import main

if __name__ == "__main__":
    main()
