"""Keep the reference parts of ``docs/`` equal to the code: ``python -m deployments.docs``.

A page is written by hand but for its regions::

    <!-- generated: connector ca-acme -->
    …
    <!-- end of generated text -->

The first line says what is shown. ``--check`` changes nothing and fails when a
region is not what the code says.
"""
