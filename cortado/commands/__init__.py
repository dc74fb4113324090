"""Commands: the subcommands of the command line, grouped by task; cli.py collects them."""
