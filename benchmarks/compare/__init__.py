"""Runs libcomm and its peers side by side: `./dev compare`, or `python3 -m benchmarks.compare`.

Standard library only. The drivers that do the measuring are in benchmarks/peers/.
"""
