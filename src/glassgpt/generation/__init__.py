"""Logits → text."""
