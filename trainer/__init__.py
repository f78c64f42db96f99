"""The training image: a SageMaker container that trains, evaluates and serves small models.

It shares file formats with the daemon, never imports. Start at ``__main__.py``; ``families.py`` names the models there
are, and each is one file, read from top to bottom (``recommender.py``, ``ease.py``, ``cnn.py``, ``tabular.py``).
"""
