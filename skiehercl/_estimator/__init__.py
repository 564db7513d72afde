"""What the clusterers share: fitted model, parameters, files."""
