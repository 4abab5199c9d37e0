"""One command, `glassgpt`: a file for each of its words, and no logic of its own."""
