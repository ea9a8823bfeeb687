# What relay_mp.observability.otel.otlp, another compiled module, calls of the writer of JSON, without a Python call or
# an object for what a C value can say. json_line.pyx is where it is written and explained.

from relay_mp._native.decode cimport rmp_cursor
from relay_mp._native.encode cimport rmp_buffer

cdef int write_value(rmp_buffer* out, rmp_cursor* cursor, int depth) except -2
