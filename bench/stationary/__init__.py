"""False retrainings in simulated years of hourly checks on data that does not change. `make bench-stationary`."""
