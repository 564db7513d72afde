"""Spots -> what the network sees: components of spots and of their neighbourhoods."""
