"""What the trainer's models reach and what that costs, beside their peers: `python -m bench.trainer`."""
