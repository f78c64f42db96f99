"""The training image: a SageMaker container that trains, evaluates and serves a next-item recommender.

It shares file formats with the daemon, never imports. Start at ``__main__.py``; each model is one file, read from
top to bottom (``recommender.py``, ``ease.py``, ``popularity.py``).
"""
