"""Measures the server under load: ``python -m benchmarks NAME``, from a checkout.

Each benchmark is a module of its own with three names: ``HELP``, one line; ``add_options``, which
adds its options to a parser; and ``run``, which measures and fills in a `report.Report`. The
server is a process of its own, started as an operator starts it; the load comes from other
processes over TLS. Every figure of the documents has the command that made it.
"""
