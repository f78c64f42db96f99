"""How soon a rise of the error rate is found, and how well performance is estimated without labels, beside others."""
