"""What every room uses: errors, settings, files, random numbers, threads, the command line."""
