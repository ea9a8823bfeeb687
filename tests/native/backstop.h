/* Included before every source of the test binary: the backstop becomes a variable, so that one binary
 * can show both that nothing depends on it (test_eventcount.c) and that it saves who does (test_kill.c). */
#ifndef RMP_TEST_BACKSTOP_H
#define RMP_TEST_BACKSTOP_H

extern unsigned long long test_backstop_ns;
#define RMP_BACKSTOP_NS test_backstop_ns

#endif
