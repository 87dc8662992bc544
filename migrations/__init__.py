"""Numbered SQL files. An applied one is never edited; a change is a new file."""
