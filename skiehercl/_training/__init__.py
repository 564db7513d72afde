"""The engine: the paper's network, its losses, and the loop that trains it."""
