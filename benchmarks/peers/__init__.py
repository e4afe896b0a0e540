"""Peers: other programs that classify images, each run as its own users would run it.

A peer is a script below ``scripts`` that imports nothing of batchcls and lists its dependencies in inline metadata
(PEP 723). The script reads one JSON object from stdin and writes another as its last line on stdout:

- in: ``folder``, ``files`` (relative to ``folder``), ``network`` (its name), ``engine``, ``weights``, ``onnx``,
  ``labels``, ``preprocess``, ``device``, ``settings``
- out: ``elapsed_s``, ``images``, ``answers`` (probabilities by relative path), ``details``

A script starts its clock once the network is loaded and has answered a first batch, so that start-up is not measured.
"""
