/* Linked into a copy of the extension that has its test points (tests/session/test_dispatcher_steps.py): the process
 * sends itself a signal at the n-th pass of a point, as RELAY_MP_TEST_STRIKE="point:n:signal" says at its start. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void (*rmp_testpoint_hook)(const char *name);

static char point[64];
static unsigned remaining;
static int signal_number;

static void strike(const char *name) {
    if (remaining && strcmp(name, point) == 0 && --remaining == 0) kill(getpid(), signal_number);
}

__attribute__((constructor)) static void arm(void) {
    const char *wanted = getenv("RELAY_MP_TEST_STRIKE");
    if (wanted && sscanf(wanted, "%63[^:]:%u:%d", point, &remaining, &signal_number) == 3) rmp_testpoint_hook = strike;
}
