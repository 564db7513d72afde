"""What the user gives -> one checked record of spots."""
