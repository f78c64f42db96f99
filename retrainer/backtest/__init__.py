"""History in, what a policy would have done out: the daemon's own `decide` on a virtual clock."""
