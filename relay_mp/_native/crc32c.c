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
/* gcc since 11 and clang since 14 have a name of its own for the instruction; some of them want it besides sse4.2. */
#if defined(__clang__) ? __clang_major__ >= 14 : __GNUC__ >= 11
#define HARDWARE __attribute__((target("sse4.2,crc32")))
#else
#define HARDWARE __attribute__((target("sse4.2")))
#endif
#define CRC_8(crc, byte) _mm_crc32_u8(crc, byte)
#define CRC_64(crc, word) _mm_crc32_u64(crc, word)
typedef uint64_t crc_register;
static int has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#define HARDWARE __attribute__((target("+crc")))
#define CRC_8(crc, byte) __crc32cb(crc, byte)
#define CRC_64(crc, word) __crc32cd(crc, word)
typedef uint32_t crc_register;
#ifdef __linux__
#include <asm/hwcap.h>
#include <sys/auxv.h>
static int has_hardware(void) { return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0; }
#else
static int has_hardware(void) { return 1; } /* all of Apple's that macOS runs on */
#endif
#endif

#ifdef HARDWARE

static inline uint64_t word_at(const uint8_t *bytes) {
    uint64_t word;
    memcpy(&word, bytes, 8);
    return word;
}

/* The instruction gives a result every cycle, but takes three: one stream after another leaves two thirds of it idle.
 * So three streams of STREAM_BYTES run side by side, and are joined: the checksum of A then B is that of A, moved over
 * as many zeros as B is long, xor that of B begun at 0. What moving does to each byte of a checksum is looked up.
 * After Gopal et al., Fast CRC Computation for iSCSI Polynomial Using CRC32 Instruction (Intel, 2011). */
#define STREAM_BYTES 512u

static uint32_t moved_byte[4][256];

static inline uint32_t moved(uint32_t crc) {
    return moved_byte[0][crc & 0xff] ^ moved_byte[1][crc >> 8 & 0xff] ^ moved_byte[2][crc >> 16 & 0xff] ^
           moved_byte[3][crc >> 24];
}

HARDWARE static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes, size_t length) {
    crc_register first = crc;
    for (; length >= 3 * STREAM_BYTES; bytes += 3 * STREAM_BYTES, length -= 3 * STREAM_BYTES) {
        crc_register second = 0, third = 0;
        for (size_t i = 0; i < STREAM_BYTES; i += 8) {
            first = CRC_64(first, word_at(bytes + i));
            second = CRC_64(second, word_at(bytes + STREAM_BYTES + i));
            third = CRC_64(third, word_at(bytes + 2 * STREAM_BYTES + i));
        }
        first = moved(moved((uint32_t)first) ^ (uint32_t)second) ^ (uint32_t)third;
    }
    for (; length >= 8; bytes += 8, length -= 8) first = CRC_64(first, word_at(bytes));
    crc = (uint32_t)first;
    for (; length; bytes++, length--) crc = CRC_8(crc, *bytes);
    return crc;
}

HARDWARE static void learn_moves(void) {
    uint32_t of_bit[32];
    for (int bit = 0; bit < 32; bit++) {
        crc_register crc = (uint32_t)1 << bit;
        for (size_t i = 0; i < STREAM_BYTES; i += 8) crc = CRC_64(crc, 0);
        of_bit[bit] = (uint32_t)crc;
    }
    for (int byte = 0; byte < 4; byte++)
        for (int value = 0; value < 256; value++)
            for (int bit = 0; bit < 8; bit++)
                if (value >> bit & 1) moved_byte[byte][value] ^= of_bit[8 * byte + bit];
}

static int use_hardware;

/* When the extension is loaded: nothing on the emit path has to ask whether it was done. 7 us. */
__attribute__((constructor)) static void prepare(void) {
    use_hardware = has_hardware();
    if (use_hardware) learn_moves();
}

uint32_t rmp_crc32c(uint32_t crc, const void *bytes, size_t length) {
    return ~(use_hardware ? crc_hardware(~crc, bytes, length) : crc_portable(~crc, bytes, length));
}

#else

uint32_t rmp_crc32c(uint32_t crc, const void *bytes, size_t length) { return ~crc_portable(~crc, bytes, length); }

#endif
