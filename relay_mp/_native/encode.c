/* The cold half of the encoder: growing its buffer. See encode.h. */
#include "encode.h"

#include <stdlib.h>

/* A mark with a handful of small fields fits without growing again. */
#define RMP_BUFFER_FIRST_BYTES ((size_t)512)

int rmp_buffer_grow(rmp_buffer *buffer, size_t extra_bytes)
{
    size_t wanted = buffer->capacity < RMP_BUFFER_FIRST_BYTES ? RMP_BUFFER_FIRST_BYTES : buffer->capacity;
    uint8_t *bytes;

    if (extra_bytes > SIZE_MAX / 2 || buffer->length > SIZE_MAX / 2 - extra_bytes) {
        return RMP_ENCODE_NO_MEMORY;
    }
    /* Doubling keeps the copying linear in the payload; the check above keeps it from overflowing. */
    while (wanted < buffer->length + extra_bytes) {
        wanted *= 2;
    }
    bytes = realloc(buffer->bytes, wanted);
    if (bytes == NULL) {
        return RMP_ENCODE_NO_MEMORY;
    }
    buffer->bytes = bytes;
    buffer->capacity = wanted;
    return 0;
}

void rmp_buffer_free(rmp_buffer *buffer)
{
    free(buffer->bytes);
    buffer->bytes = NULL;
    buffer->length = 0;
    buffer->capacity = 0;
}
