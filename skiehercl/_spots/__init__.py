"""What the user gives (containers, arrays, labels, graphs), checked, as one record of spots."""
