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
static rmp_producer *producers; /* of all threads that have emitted and live */

bool rmp_free_threaded;

static __thread rmp_producer own;

static void lock(void) { pthread_mutex_lock(&changing); }
static void unlock(void) { pthread_mutex_unlock(&changing); }

/* In a child only the forking thread lives: nobody else is inside, and who had opened the mapping has it. */
static void unlock_child(void) {
    if (producers) {
        bool is_listed = own.attachment != 0;
        producers = is_listed ? &own : NULL;
        own.next = own.before = NULL;
    }
    own.waits = 0;
    if (current_number) *current.users = 1;
    unlock();
}

static void list(rmp_producer *producer) {
    producer->before = NULL;
    producer->next = producers;
    if (producers) producers->before = producer;
    producers = producer;
}

static void unlist(rmp_producer *producer) {
    if (producer->before) producer->before->next = producer->next;
    else producers = producer->next;
    if (producer->next) producer->next->before = producer->before;
}

/* The thread emits no more through the slot that it has in that attachment. */
static void give_slot_back(rmp_producer *producer, const rmp_ring *ring, uint64_t attachment) {
    if (producer->slot && producer->attachment == attachment && producer->fork_epoch == rmp_fork_epoch())
        rmp_slots_exit(ring, producer->slot);
    producer->slot = 0;
}

static void leave_thread(void *value) {
    rmp_producer *producer = value;
    lock();
    unlist(producer);
    if (current_number) give_slot_back(producer, &current.ring, current_number);
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

rmp_segment *rmp_attachment_of(const rmp_producer *producer) {
    return producer->attachment == __atomic_load_n(&current_number, __ATOMIC_ACQUIRE) ? &current : NULL;
}

uint64_t rmp_attachment_number(void) { return __atomic_load_n(&current_number, __ATOMIC_ACQUIRE); }

void rmp_attachment_set(const rmp_segment *segment) {
    pthread_once(&prepared, prepare);
    lock();
    current = *segment;
    __atomic_store_n(&current_number, ++last_number, __ATOMIC_RELEASE);
    unlock();
}

/* Without a GIL another thread may be writing just now: it keeps its slot until the process ends. */
static bool is_idle(const rmp_producer *producer) {
    return producer == &own || !(rmp_free_threaded || producer->waits);
}

void rmp_attachment_clear(void) {
    lock();
    if (current_number) {
        for (rmp_producer *each = producers; each; each = each->next)
            if (is_idle(each)) give_slot_back(each, &current.ring, current_number);
        __atomic_store_n(&current_number, 0, __ATOMIC_RELEASE);
        rmp_segment gone = current;
        rmp_segment_close(&gone, rmp_free_threaded);
    }
    unlock();
}

rmp_wait rmp_wait_begin(void) {
    rmp_segment_keep(&current);
    own.waits++;
    return (rmp_wait){current, current_number};
}

void rmp_wait_end(rmp_wait *wait) {
    lock();
    own.waits--;
    if (!own.waits && own.attachment == wait->attachment && wait->attachment != current_number)
        give_slot_back(&own, &wait->segment.ring, wait->attachment);
    rmp_segment_close(&wait->segment, rmp_free_threaded);
    unlock();
}

/* In this ring: the number alone may be another thread's, of a session before this one. */
static bool had_slot(uint32_t number, uint64_t thread_id) {
    return number && number < current.ring.slot_count &&
           rmp_load_relaxed(&rmp_ring_slot(&current.ring, number)->thread_id) == thread_id;
}

static rmp_producer *join(uint64_t epoch) {
    lock();
    if (current_number) {
        if (!own.attachment) list(&own);
        own.fork_epoch = epoch;
        own.attachment = current_number;
        own.thread_id = rmp_thread_id();
        rmp_process self = rmp_process_self();
        bool is_back = had_slot(own.last_slot, own.thread_id) &&
                       rmp_slots_take_this(&current.ring, own.last_slot, self, own.thread_id);
        own.slot = is_back ? own.last_slot : rmp_slots_take(&current.ring, self, own.thread_id);
        own.last_slot = own.slot;
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

rmp_producer *rmp_wait_place(const rmp_wait *wait) {
    if (wait->attachment == rmp_attachment_number()) return rmp_producer_own();
    bool is_there = own.attachment == wait->attachment && own.fork_epoch == rmp_fork_epoch() && own.slot;
    return is_there ? &own : NULL;
}
