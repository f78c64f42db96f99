"""The ports, in memory: each fake passes the same contract suite as the adapter it stands for."""
