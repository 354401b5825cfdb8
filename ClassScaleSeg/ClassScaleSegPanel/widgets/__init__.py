"""Widgets and words that all other folders of the panel use."""
