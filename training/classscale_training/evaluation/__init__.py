"""Compute Dice and surface Dice of label maps, and report them."""
