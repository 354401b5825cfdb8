"""Dice and surface Dice of label maps, and their report."""
