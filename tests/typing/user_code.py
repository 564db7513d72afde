import skiehercl
