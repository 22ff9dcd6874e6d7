"""Every connector: importing this package registers them with Prefect.

It is the ``prefect.collections`` entry point, so a fresh worker can load any
saved block.
"""
