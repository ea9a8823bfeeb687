/* Copies of payloads, which may be long.
 *
 * From a few KiB on glibc's memcpy is the instruction `rep movsb`. AMD's Zen 3 and 4 do it at a tenth of its speed where
 * the target's place in its page is just behind the source's, and where buffers lie is chance: a mark of 256 KiB took
 * 185 us in some processes, and 50 in others. So long copies are made piece by piece, with lengths for which memcpy uses
 * vector registers: as fast as ever elsewhere. Source: glibc's bug 30994, "REP MOVSB performance suffers from page
 * aliasing on Zen 4"; the lengths are in its sysdeps/x86/dl-cacheinfo.h.
 */
#ifndef RMP_COPY_H
#define RMP_COPY_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define RMP_COPY_PIECE_BYTES 2048u

static inline void rmp_copy(void *to, const void *from, size_t count) {
    for (size_t done = 0, piece; done < count; done += piece) {
        piece = count - done < RMP_COPY_PIECE_BYTES ? count - done : RMP_COPY_PIECE_BYTES;
        __asm__("" : "+r"(piece)); /* hides it: the compiler writes copies whose length it knows as `rep movsq` */
        memcpy((uint8_t *)to + done, (const uint8_t *)from + done, piece);
    }
}

#endif
