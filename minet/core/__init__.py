"""Shared by all rooms: errors, settings, files, random numbers, threads, the command line."""
