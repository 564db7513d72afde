"""The command line: skiehercl fit, skiehercl demo."""
