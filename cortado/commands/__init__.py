"""The commands, one file for each part of the work; cli.py gathers them."""
