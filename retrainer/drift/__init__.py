"""Numbers in, evidence out: pure functions on columns of values, without files, clocks or libraries of drift."""
