"""One outside system each: an adapter translates and never decides, and no adapter imports another."""
