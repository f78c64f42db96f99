"""What was measured of a model, told: a JSON document, and a page with small plots made of nothing else. Pure."""
