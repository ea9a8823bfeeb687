#include "producer.h"

#include <pthread.h>
#include <stdlib.h>

#include "slots.h"

/* The lock is for attaching, detaching and a thread's first and last event; never for an emit. */
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static pthread_key_t at_thread_exit;

static rmp_segment current;
static uint64_t current_number; /* of the attachment; 0: none */
static uint64_t last_number;
static uint32_t threads_inside;

bool rmp_free_threaded;

static __thread rmp_producer own;

static void lock(void) { pthread_mutex_lock(&changing); }
static void unlock(void) { pthread_mutex_unlock(&changing); }

/* In a child only the forking thread lives: nobody else is inside. */
static void unlock_child(void) {
    unlock();
    threads_inside = 0;
}

static void leave_thread(void *value) {
    rmp_producer *producer = value;
    lock();
    bool mine = producer->slot && producer->attachment == current_number && producer->fork_epoch == rmp_fork_epoch();
    if (mine) rmp_slots_exit(&current.ring, producer->slot);
    producer->slot = 0;
    producer->attachment = 0;
    unlock();
    free(producer->buffer.bytes);
    producer->buffer = (rmp_buffer){0};
}

static void prepare(void) {
    pthread_key_create(&at_thread_exit, leave_thread);
    pthread_atfork(lock, unlock, unlock_child);
}

rmp_segment *rmp_attachment(void) { return __atomic_load_n(&current_number, __ATOMIC_ACQUIRE) ? &current : NULL; }

void rmp_attachment_set(const rmp_segment *segment) {
    pthread_once(&prepared, prepare);
    lock();
    current = *segment;
    __atomic_store_n(&current_number, ++last_number, __ATOMIC_RELEASE);
    unlock();
}

void rmp_attachment_clear(void) {
    lock();
    if (current_number) {
        if (own.slot && own.attachment == current_number && own.fork_epoch == rmp_fork_epoch())
            rmp_slots_exit(&current.ring, own.slot);
        __atomic_store_n(&current_number, 0, __ATOMIC_RELEASE);
        rmp_segment gone = current;
        rmp_segment_close(&gone, rmp_attachment_in_use());
    }
    unlock();
}

bool rmp_attachment_in_use(void) {
    return rmp_free_threaded || __atomic_load_n(&threads_inside, __ATOMIC_ACQUIRE) != 0;
}

void rmp_attachment_enter(void) { __atomic_add_fetch(&threads_inside, 1, __ATOMIC_ACQ_REL); }
void rmp_attachment_leave(void) { __atomic_sub_fetch(&threads_inside, 1, __ATOMIC_ACQ_REL); }

static rmp_producer *join(uint64_t epoch) {
    lock();
    if (current_number) {
        own.fork_epoch = epoch;
        own.attachment = current_number;
        own.thread_id = rmp_thread_id();
        own.slot = rmp_slots_take(&current.ring, rmp_process_self(), own.thread_id);
        own.counters = own.slot ? rmp_ring_slot(&current.ring, own.slot) : NULL;
        own.owner_seq = own.slot ? rmp_load_relaxed(&own.counters->emitted) : 0;
        pthread_setspecific(at_thread_exit, &own);
    }
    bool attached = current_number != 0;
    unlock();
    return attached ? &own : NULL;
}

rmp_producer *rmp_producer_own(void) {
    uint64_t number = __atomic_load_n(&current_number, __ATOMIC_ACQUIRE);
    uint64_t epoch = rmp_fork_epoch();
    if (number && own.attachment == number && own.fork_epoch == epoch && own.slot) return &own;
    return number ? join(epoch) : NULL;
}
