/* UUIDv7 (RFC 9562, section 5.7, method 2): 48 bits of milliseconds, then 74 bits that are random at
 * the first id of a millisecond and grow by a random step within it, so that one thread's ids sort.
 * State is per thread; a forked child seeds anew. */
#ifndef RMP_UUID7_H
#define RMP_UUID7_H

#include <stdint.h>

uint64_t rmp_realtime_us(void);

/* `now_us` is rmp_realtime_us, which the caller mostly has at hand: the clock costs as much as the rest. */
void rmp_uuid7(uint8_t uuid[16], uint64_t now_us);

#endif
