"""Speed and memory beside blocking pyzmq of the same run: ``python -m benchmarks``.

``row`` says what a row is and prints it; ``baseline`` is the blocking peer; ``bench``
is what rows are given and how blocks are interleaved; ``calls``, ``tesserae``,
``start`` and ``memory`` hold the rows by theme. These are measurements, never tests.
"""
