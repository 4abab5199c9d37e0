"""The slow, obviously right twins that chapters build and tests compare with; the library never imports them."""
