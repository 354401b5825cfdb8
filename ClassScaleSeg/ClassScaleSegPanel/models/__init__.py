"""Which models and classes: the list of models, their download, and the classes of those that are chosen."""
