"""The deciding part: no clock, no network, no randomness, no logging. Everything here is a value or a pure function."""
