"""An event-driven retraining daemon: decides when a model must be retrained, and follows it until it serves."""

__version__ = "0.1.0"
