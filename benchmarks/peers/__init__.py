"""What people use instead of batchcls, each run as its own users would, in an environment of its own.

A peer is a script beside this file that imports nothing of batchcls and names what it needs in its inline metadata
(PEP 723). It is given one JSON object on stdin, and its last line on stdout is another:

- in: ``folder``, ``files`` (relative to it), ``network`` (its name), ``engine``, ``weights``, ``onnx``, ``labels``,
  ``preprocess``, ``device``, ``settings``
- out: ``elapsed_s``, ``images``, ``answers`` (the probabilities by relative path), ``details``

The clock starts once the network is loaded and has answered a first batch: starting up is not charged to a peer.
"""
