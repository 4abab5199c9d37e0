"""The slow, obviously right twins that chapters build and tests compare with, and stand-ins that they read.

The library never imports them.
"""
