"""What a verdict on drift costs: ours beside Evidently, NannyML and scipy, on the same rows. `make bench-drift`."""
