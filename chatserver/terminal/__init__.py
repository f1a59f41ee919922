"""The terminal client: the console script ``asyncchat``."""
