"""What every floor uses: checks of arrays, threads, devices, memory, labels, AnnData."""
