"""OpenVINO's one core of a process, which is never closed while Python runs."""

import openvino as ov

CORE = ov.Core()
"""The core that reads and compiles every network.

With the first network, a core gives the thread that compiles it an alternate signal stack, and frees that memory when
the core is gone. Of two cores, the one that is freed last puts back the stack of the other, which is freed already;
the next signal that Python handles in that thread then ends the process (seen in OpenVINO 2026.4).
"""
