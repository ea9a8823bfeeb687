/* Every store that another process can see is a named point at which a test can stop or kill its
 * writer (after lttng-ust's TESTPOINT). Compiled out unless RMP_TEST_POINTS is defined. */
#ifndef RMP_TESTPOINT_H
#define RMP_TESTPOINT_H

#ifdef RMP_TEST_POINTS
extern void (*rmp_testpoint_hook)(const char *name);
#define RMP_TESTPOINT(name)                                  \
    do {                                                     \
        if (rmp_testpoint_hook) rmp_testpoint_hook(name);    \
    } while (0)
#else
#define RMP_TESTPOINT(name) ((void)0)
#endif

#endif
