"""The demonstration: real interactions replayed through the real loop, on one machine."""
