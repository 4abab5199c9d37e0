"""The slow, obviously right twins that chapters build and tests compare with.

The library never imports them.
"""
