"""Fine-tuning: from corrected segmentations to a model that learned from them, by one command.

``command.py`` says in which order the steps are done; each is another command in a process of its own (``work.py``).
"""
