"""The command ``classscaleseg``: its subcommands, their options, and what they print."""
