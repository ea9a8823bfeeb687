/* CRC-32C (Castagnoli, RFC 3720 appendix B.4), in hardware where there is one. */
#ifndef RMP_CRC32C_H
#define RMP_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t rmp_crc32c(uint32_t crc, const void *bytes, size_t length);

#endif
