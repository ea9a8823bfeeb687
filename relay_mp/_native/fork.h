/* Has the memory of this process come into being by a fork?
 *
 * A number that differs in every forked child, whoever forked it (uWSGI and others call fork() in C, where no Python hook
 * runs). Reading it is one load. Apart from process.h because fork.c has a state: an extension module of its own copy
 * would get other numbers, so that only one may link it.
 */
#ifndef RMP_FORK_H
#define RMP_FORK_H

#include <stdint.h>

extern uint64_t *rmp_fork_page; /* 0 in a child */
extern uint64_t rmp_fork_count;

uint64_t rmp_fork_renew(void);

static inline uint64_t rmp_fork_epoch(void) {
    uint64_t *page = __atomic_load_n(&rmp_fork_page, __ATOMIC_ACQUIRE);
    uint64_t epoch = page ? __atomic_load_n(page, __ATOMIC_RELAXED) : 0;
    return epoch ? epoch : rmp_fork_renew();
}

#endif
