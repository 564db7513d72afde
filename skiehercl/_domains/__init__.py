"""Embeddings -> domains: mixtures, their vote, the number of domains."""
