"""Set-up scripts, and the generator of docs/settings.md."""
