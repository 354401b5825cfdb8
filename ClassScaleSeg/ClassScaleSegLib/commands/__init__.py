"""The command ``classscaleseg``: one file a subcommand."""
