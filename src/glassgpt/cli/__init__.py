"""One command, a file each; no logic of its own."""
