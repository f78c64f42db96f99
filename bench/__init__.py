"""What the daemon costs and how fast it is, measured beside others: `make bench`."""
