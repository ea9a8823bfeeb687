#include "crc32c.h"

#include <string.h>

#define POLYNOMIAL_REFLECTED 0x82f63b78u

static uint32_t crc_portable(uint32_t crc, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (POLYNOMIAL_REFLECTED & (0u - (crc & 1)));
    }
    return crc;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
    uint64_t wide = crc;
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length; bytes++, length--) crc = _mm_crc32_u8(crc, *bytes);
    return crc;
}
static int has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
__attribute__((target("+crc"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        crc = __crc32cd(crc, word);
    }
    for (; length; bytes++, length--) crc = __crc32cb(crc, *bytes);
    return crc;
}
static int has_hardware(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes, size_t length) { return crc_portable(crc, bytes, length); }
static int has_hardware(void) { return 0; }
#endif

uint32_t rmp_crc32c(uint32_t crc, const void *bytes, size_t length) {
    static int hardware = -1; /* racing threads write the same value */
    int use = __atomic_load_n(&hardware, __ATOMIC_RELAXED);
    if (use < 0) {
        use = has_hardware();
        __atomic_store_n(&hardware, use, __ATOMIC_RELAXED);
    }
    return ~(use ? crc_hardware(~crc, bytes, length) : crc_portable(~crc, bytes, length));
}
