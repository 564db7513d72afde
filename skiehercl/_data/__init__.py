"""What the user brings, checked: containers, numbers, labels."""
