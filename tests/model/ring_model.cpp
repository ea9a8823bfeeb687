// ring_model: an explicit-state model of the ring protocol (DESIGN, section 4).
//
// It visits every interleaving of a few producers and one dispatcher on a tiny ring, breadth first, and
// stops at the first state that breaks an invariant, with the shortest trace that leads there.
//
// Modelled: the claim with helping, padding at the ring's end, the copy unit by unit, commit by CAS; the
// dispatcher's reading, helping, aborting, delivering and releasing (in batches of any size, last unit
// first); a kill of any producer at every step; a dispatcher's crash at every step and its restart;
// fencing of a slow live writer (--fence); parking on both sides (--park); the reuse of a dead
// producer's owner number (--takeovers).
//
// Not modelled: weak memory (every step below is one atomic access, sequentially consistent; agreement
// with the C11 orders is for other tests), corruption, CRC, two dispatchers at once (the lease is taken
// as exclusive), a stopped process (safety covers it, as a run in which it is no longer scheduled; what
// the others can still reach then is not judged). One unit is copied in one step. A payload never equals
// a FREE word: see mutant payload-looks-free.
//
//   a unit's first word:
//
//     FREE(p) --publish--> BUSY --commit---------------> COMMITTED --deliver--+
//        |                  |  \--abort: owner dead----> ABORTED -------------+--release--> FREE(p + capacity)
//        |                  |                               ^ give up         |  (all units, the last first)
//        |                  \--fence: owner slow-------> FENCED --owner dead--+
//        +-------publish, owner PAD--------------------> PAD -----------------+
//     an inner unit of a record: FREE(p) --copy--> PAYLOAD --release--> FREE(p + capacity)
//
//   a producer:    load tail > help > check space > CAS tail > publish > copy.. > commit [> wake] > load tail
//                     ^                  | full: set parked > look again > wait       | fenced: give up
//   a dispatcher:  look > read head > help | abort | fence | deliver > advance read_pos > look
//                  look > release units.. > look > publish free_pos [> wake] > look
//                  look > set parked > look again > wait
//
// What keeps it fast: states are kept as 64-bit fingerprints in a flat hash set, with five bytes of link
// to the parent (two states in 10^8 share a fingerprint with probability below 1e-3); only the frontier
// is held in full. Producers are interchangeable, so they are sorted; positions only matter relative
// to the ring, so free_pos is kept below the capacity (in a trace, too, all positions fall back by it).
// --no-reduction takes both away, to compare verdicts.

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

// ---------------------------------------------------------------- options

// Read at almost every step, hence flags, and not a comparison of names there.
struct Mutants {
    bool no_help, no_dispatcher_help, commit_before_copy, deliver_busy_of_dead, advance_before_deliver,
        free_without_position, release_header_only, release_first_unit_first, reclaim_on_fence,
        commit_by_store, fence_by_store, reuse_owner_early, no_look_again, no_look_again_for_space,
        wake_before_commit, plain_space_flag, no_backstop, payload_looks_free;
};

Mutants mutant;

constexpr struct {
    bool Mutants::*flag;
    const char* name;
    const char* broken_rule;
} kMutations[] = {
    {&Mutants::no_help, "no-help",
     "a claimer publishes the newest claim's header before it claims"},
    {&Mutants::no_dispatcher_help, "no-dispatcher-help",
     "the dispatcher publishes the header at the head if it is missing"},
    {&Mutants::commit_before_copy, "commit-before-copy",
     "commit comes after the whole payload"},
    {&Mutants::deliver_busy_of_dead, "deliver-busy-of-dead",
     "a dead owner's record is aborted, not delivered"},
    {&Mutants::advance_before_deliver, "advance-before-deliver",
     "read_pos moves only after delivery"},
    {&Mutants::free_without_position, "free-without-position",
     "a FREE word carries its full position"},
    {&Mutants::release_header_only, "release-header-only",
     "release resets the first word of every unit"},
    {&Mutants::release_first_unit_first, "release-first-unit-first",
     "release goes from the last unit to the first"},
    {&Mutants::reclaim_on_fence, "reclaim-on-fence",
     "a fenced record's space waits for its writer"},
    {&Mutants::commit_by_store, "commit-by-store",
     "commit is a CAS that a fence can make fail"},
    {&Mutants::fence_by_store, "fence-by-store",
     "a fence is a CAS that a commit can make fail"},
    {&Mutants::reuse_owner_early, "reuse-owner-early",
     "an owner number waits until free_pos passed the tail seen at its death"},
    {&Mutants::no_look_again, "no-look-again",
     "the dispatcher looks again between setting parked and waiting"},
    {&Mutants::no_look_again_for_space, "no-look-again-for-space",
     "a producer looks again between setting parked and waiting"},
    {&Mutants::wake_before_commit, "wake-before-commit",
     "the producer reads parked after its commit"},
    {&Mutants::plain_space_flag, "plain-space-flag",
     "the word that producers wait on changes at each wake-up"},
    {&Mutants::no_backstop, "no-backstop",
     "waits end after 50 ms, should the process that owes the wake-up die"},
    {&Mutants::payload_looks_free, "payload-looks-free",
     "(an assumption) no payload equals the FREE word of an earlier lap"},
};

struct Options {
    int producers = 2, records = 1, capacity = 4, max_units = 2;
    int kills = 0, crashes = 0, takeovers = 0;
    bool fence = false, park = false, reduction = true;
    std::string mutant;
    uint64_t max_states = 400'000'000;
};

Options options;

// ---------------------------------------------------------------- the state

constexpr int kMaxProducers = 4;
constexpr int kMaxCapacity = 8;
constexpr int8_t kPadOwner = kMaxProducers;
constexpr int8_t kNowhere = INT8_MIN;  // "no position"

enum WordState : int8_t { FREE, BUSY, COMMITTED, ABORTED, FENCED, PAD, PAYLOAD };

struct Word {
    int8_t state, owner, units, pos;
};

struct Tail {  // 16 bytes, atomic, in the real ring: the newest claim
    int8_t pos, units, owner;
};

struct Unit {
    Word word;
    int8_t payload;  // where the claim starts whose payload lies here
};

// Not in the real ring: what has become of the claim that starts here, for the invariants.
enum ClaimFate : int8_t { NO_CLAIM, PADDING, OPEN, WRITTEN, DROPPED, DELIVERED };

struct Claim {
    int8_t fate, units, deliveries;
};

enum ProducerStep : int8_t {
    LOAD_TAIL,
    HELP,
    CHECK_SPACE,
    CAS_TAIL,
    PUBLISH,
    COPY,
    COMMIT,
    GIVE_UP,
    TURN_PARKED,
    WAKE_DISPATCHER,
    SET_SPACE_PARKED,
    LOOK_AGAIN_FOR_SPACE,
    WAIT_FOR_SPACE,
    ASLEEP_FOR_SPACE,
    DONE,
    DEAD,
};

const char* const kProducerStepNames[] = {
    "load tail", "help", "check space", "CAS tail", "publish", "copy", "commit", "give up", "turn parked",
    "wake dispatcher", "set space parked", "look again for space", "wait for space", "asleep for space",
    "done", "dead"};

struct Producer {
    int8_t step, records_left;
    int8_t units;   // of the record in hand, 0 before its size is chosen
    int8_t copied;  // units of it copied so far
    int8_t start;   // of its claim; nowhere unless it is writing
    Tail tail;      // as loaded
    int8_t space_word;     // the word it is about to wait on, as it saw it
    int8_t tail_at_death;  // noted in its slot once its death was seen
};

enum DispatcherStep : int8_t {
    LOOK,
    READ_WORD,
    HELP_HEAD,
    ABORT,
    FENCE,
    DELIVER,
    ADVANCE,
    RELEASE_UNIT,
    TURN_SPACE_PARKED,
    WAKE_PRODUCERS,
    SET_PARKED,
    LOOK_AGAIN,
    WAIT,
    ASLEEP,
};

const char* const kDispatcherStepNames[] = {
    "look", "read word", "help at the head", "abort", "fence", "deliver", "advance read_pos", "release unit",
    "turn space parked", "wake producers", "set parked", "look again", "wait", "asleep"};

enum DispatcherChoice { READ_HEAD, RELEASE_NEXT, PUBLISH_FREE_POS, PARK, kDispatcherChoices };

const char* const kDispatcherChoiceNames[] = {"load tail", "begin to release", "publish free_pos",
                                              "find nothing to do"};

struct Dispatcher {
    int8_t step;
    Tail tail;
    Word word;
    int8_t head;             // position of the record in hand
    int8_t release_pos;      // released up to here, though free_pos may not say so yet
    int8_t unit;             // of the record being released
    int8_t restarted;        // the next delivery is flagged as a possible redelivery
};

struct State {
    Tail tail;
    int8_t read_pos, free_pos;
    int8_t parked;      // the dispatcher's
    int8_t space_word;  // the producers': bit 0 parked, above it a count of wake-ups
    std::array<Unit, kMaxCapacity> unit;
    std::array<Claim, kMaxCapacity> claim;
    std::array<Producer, kMaxProducers> producer;
    Dispatcher dispatcher;
    int8_t kills_left, crashes_left, takeovers_left;
    int8_t wakeup_owed;  // someone died who owed a wake-up or whose claim awaits an abort
};

static_assert(alignof(State) == 1, "no padding: a state is fingerprinted as bytes");

bool operator==(const Word& a, const Word& b) { return !std::memcmp(&a, &b, sizeof a); }
bool operator==(const Tail& a, const Tail& b) { return !std::memcmp(&a, &b, sizeof a); }

int unit_index(int pos) { return (pos + 16 * kMaxCapacity * options.capacity) % options.capacity; }
Unit& unit_at(State& s, int pos) { return s.unit[unit_index(pos)]; }
Word& word_at(State& s, int pos) { return unit_at(s, pos).word; }
const Word& word_at(const State& s, int pos) { return s.unit[unit_index(pos)].word; }
Claim& claim_at(State& s, int pos) { return s.claim[unit_index(pos)]; }
const Claim& claim_at(const State& s, int pos) { return s.claim[unit_index(pos)]; }

Word free_word(int pos) { return {FREE, 0, 0, mutant.free_without_position ? int8_t{0} : int8_t(pos)}; }
int claim_start(const Tail& t) { return t.pos - t.units; }
bool is_dead(const State& s, int owner) { return s.producer[owner].step == DEAD; }
bool is_writing(const Producer& p) { return p.start != kNowhere; }
bool is_header(const Word& w, int pos) { return w.state >= BUSY && w.state <= PAD && w.pos == pos; }

bool compare_and_swap(Word& word, const Word& expected, const Word& desired) {
    bool fooled = mutant.payload_looks_free && word.state == PAYLOAD && expected.state == FREE;
    if (!(word == expected) && !fooled) return false;
    word = desired;
    return true;
}

bool needs_padding(const Tail& tail, int units) { return unit_index(tail.pos) + units > options.capacity; }

int claim_units(const Tail& tail, int units) {
    return needs_padding(tail, units) ? options.capacity - unit_index(tail.pos) : units;
}

// In the real ring `free_pos` can be ahead of a stale tail: the difference has to be taken as signed.
bool fits(const State& s, const Tail& tail, int units) {
    return tail.pos + claim_units(tail, units) - s.free_pos <= options.capacity;
}

Producer producer_at(ProducerStep step, int records_left) {
    Producer p{};
    p.step = step;
    p.records_left = int8_t(records_left);
    p.start = p.tail_at_death = kNowhere;
    return p;
}

State initial_state() {
    State s;
    std::memset(&s, 0, sizeof s);
    for (int u = 0; u < options.capacity; u++) s.unit[u] = {free_word(u), kNowhere};
    for (Producer& p : s.producer) p = producer_at(DONE, 0);
    for (int i = 0; i < options.producers; i++) s.producer[i] = producer_at(LOAD_TAIL, options.records);
    s.kills_left = options.kills;
    s.crashes_left = options.crashes;
    s.takeovers_left = options.takeovers;
    return s;
}

// ---------------------------------------------------------------- invariants

struct Violation {
    const char* invariant;
    const char* message;
};

void require(bool holds, const char* invariant, const char* message) {
    if (!holds) throw Violation{invariant, message};
}

void no_torn_payload(const State& s, const Word& header, int pos) {
    for (int u = 0; u < header.units; u++) {
        const Unit& unit = s.unit[unit_index(pos + u)];
        require(unit.payload == pos && (u == 0 || unit.word.state == PAYLOAD), "no-torn-payload",
                "a delivered record holds units that are not as its writer wrote them");
    }
}

void fifo_per_claim_order(const State& s, int pos) {
    for (int earlier = s.free_pos; earlier < pos; earlier++) {
        int8_t fate = claim_at(s, earlier).fate;
        require(fate != OPEN && fate != WRITTEN, "fifo-per-claim-order",
                "a record is delivered before one that was claimed earlier");
    }
}

void only_claimed_and_committed_is_delivered(const State& s, const Word& header, int pos) {
    const Claim& claim = claim_at(s, pos);
    require((claim.fate == WRITTEN || claim.fate == DELIVERED) && claim.units == header.units,
            "only-claimed-and-committed-is-delivered",
            "something is delivered that nobody claimed and committed, or with another length");
}

void delivered_again_only_after_a_crash(const State& s, int pos) {
    if (claim_at(s, pos).fate != DELIVERED) return;
    require(s.dispatcher.restarted, "delivered-exactly-once",
            "a record is delivered twice, and the second time is not flagged");
    require(claim_at(s, pos).deliveries <= options.crashes - s.crashes_left, "delivered-exactly-once",
            "a record is delivered more than once more for each crash");
}

void committed_is_delivered_before_release(const State& s, int from, int to) {
    for (int pos = from; pos < to; pos++)
        require(claim_at(s, pos).fate != WRITTEN, "delivered-exactly-once",
                "a committed record's space is given away undelivered");
}

void committed_is_delivered_at_quiescence(const State& s) {
    for (const Claim& claim : s.claim)
        require(claim.fate != WRITTEN, "delivered-exactly-once", "a committed record is never delivered");
}

void space_not_released_under_live_writer(const State& s, int pos) {
    for (const Producer& p : s.producer)
        require(!(is_writing(p) && p.start == pos), "space-not-released-under-live-writer",
                "a unit is released while its writer may still write into it");
}

void writer_holds_its_header(const State& s, int writer) {
    const Producer& p = s.producer[writer];
    const Word& w = word_at(s, p.start);
    require((w.state == BUSY || w.state == FENCED) && w.owner == writer && w.pos == p.start, "writer-holds-its-header",
            "a writer goes on without a published header of its own");
}

void head_has_known_length(const State& s, const Tail& newest) {
    require(claim_start(newest) == s.read_pos, "head-has-known-length",
            "a claimed region of unknown length is at the head");
}

void only_headers_are_read_as_headers(const Word& word, int pos) {
    require(is_header(word, pos), "only-headers-are-read-as-headers",
            "the dispatcher takes something else for a record's header");
}

void no_lost_wakeup(const State& s) {
    bool undelivered = false;
    for (const Claim& claim : s.claim) undelivered |= claim.fate == WRITTEN || claim.fate == OPEN;
    require(!(s.dispatcher.step == ASLEEP && undelivered), "no-lost-wakeup",
            "all is quiet, a record is undelivered, and the dispatcher is parked");
    for (const Producer& p : s.producer)
        require(!(p.step == ASLEEP_FOR_SPACE && fits(s, s.tail, p.units)), "no-lost-wakeup",
                "all is quiet, there is space, and a producer is parked waiting for it");
}

void no_deadlock_with_live_producer(const State& s) {
    for (const Producer& p : s.producer)
        require(p.step == DONE || p.step == DEAD, "no-deadlock-with-live-producer",
                "nothing can move, and a live producer has not finished");
}

void drained_at_quiescence(const State& s) {
    if (s.dispatcher.step == ASLEEP) return;  // a killed producer's padding may wait for the next record
    require(s.read_pos == s.tail.pos, "drained-at-quiescence", "nothing can move, and the ring is not read to its end");
    require(s.free_pos == s.tail.pos, "drained-at-quiescence", "nothing can move, and space is not given back");
}

void check_quiescent(const State& s) {
    no_lost_wakeup(s);
    no_deadlock_with_live_producer(s);
    committed_is_delivered_at_quiescence(s);
    drained_at_quiescence(s);
}

// ---------------------------------------------------------------- the producer's steps
//
// Each returns false if it cannot be taken now: waiting is a step that is not enabled, not a loop.

// Publishing is idempotent: the CAS fails if the header is there, or if the ring went on a lap since.
void publish_header(State& s, const Tail& newest) {
    int start = claim_start(newest);
    int8_t state = newest.owner == kPadOwner ? PAD : BUSY;
    compare_and_swap(word_at(s, start), free_word(start), {state, newest.owner, newest.units, int8_t(start)});
}

bool start_over(Producer& p) {
    p.tail = {};
    p.space_word = 0;
    p.step = LOAD_TAIL;
    return true;
}

bool finish_record(Producer& p) {
    p.units = p.copied = 0;
    p.step = --p.records_left > 0 ? LOAD_TAIL : DONE;
    return true;
}

bool load_tail(State& s, int i, int choice) {
    Producer& p = s.producer[i];
    if (p.units == 0) p.units = choice + 1;  // encode first: the size is known, and stays over retries
    else if (choice != 0) return false;
    p.tail = s.tail;
    bool nothing_to_help = p.tail.units == 0 || p.tail.owner == i || mutant.no_help;
    p.step = nothing_to_help ? CHECK_SPACE : HELP;
    return true;
}

bool help(State& s, int i) {
    publish_header(s, s.producer[i].tail);
    s.producer[i].step = CHECK_SPACE;
    return true;
}

bool check_space(State& s, int i) {
    Producer& p = s.producer[i];
    if (fits(s, p.tail, p.units)) {
        p.step = CAS_TAIL;
        return true;
    }
    if (!(p.tail == s.tail)) return start_over(p);
    p.step = SET_SPACE_PARKED;
    return options.park;
}

bool cas_tail(State& s, int i) {
    Producer& p = s.producer[i];
    if (!(p.tail == s.tail)) return start_over(p);
    bool padding = needs_padding(p.tail, p.units);
    int8_t start = p.tail.pos, units = claim_units(p.tail, p.units);
    s.tail = {int8_t(start + units), units, padding ? kPadOwner : int8_t(i)};
    claim_at(s, start) = {padding ? PADDING : OPEN, units, 0};
    start_over(p);
    if (padding) return true;  // its header is published by whoever claims next
    p.start = start;
    p.step = PUBLISH;
    return true;
}

bool publish(State& s, int i) {
    Producer& p = s.producer[i];
    publish_header(s, {int8_t(p.start + p.units), p.units, int8_t(i)});
    p.step = COPY;
    return true;
}

int8_t step_after_copy() { return options.park && mutant.wake_before_commit ? TURN_PARKED : COMMIT; }

bool copy_unit(State& s, int i) {
    Producer& p = s.producer[i];
    writer_holds_its_header(s, i);
    Unit& unit = unit_at(s, p.start + p.copied);
    unit.payload = p.start;
    if (p.copied > 0) unit.word = {PAYLOAD, 0, 0, 0};  // only the first unit keeps its first word
    p.copied++;
    bool all = p.copied == p.units;
    if (all || (mutant.commit_before_copy && p.copied == p.units - 1)) p.step = step_after_copy();
    return true;
}

bool after_commit(Producer& p) {
    p.start = kNowhere;
    if (!options.park || mutant.wake_before_commit) return finish_record(p);
    p.step = TURN_PARKED;
    return true;
}

bool commit(State& s, int i) {
    Producer& p = s.producer[i];
    writer_holds_its_header(s, i);
    Word& word = word_at(s, p.start);
    if (word.state == FENCED && !mutant.commit_by_store) {
        p.step = GIVE_UP;
        return true;
    }
    word.state = COMMITTED;
    claim_at(s, p.start).fate = WRITTEN;
    return after_commit(p);
}

// The commit's CAS has failed: from now on this writer leaves the space alone, and says so.
bool give_up(State& s, int i) {
    Producer& p = s.producer[i];
    word_at(s, p.start).state = ABORTED;
    return after_commit(p);
}

bool leave_wakeup(Producer& p) {
    if (!mutant.wake_before_commit) return finish_record(p);
    p.step = COMMIT;
    return true;
}

// A missing full fence before this read would let the hardware do what mutant wake-before-commit does.
bool turn_parked(State& s, int i) {
    Producer& p = s.producer[i];
    if (!s.parked) return leave_wakeup(p);
    s.parked = 0;
    p.step = WAKE_DISPATCHER;
    return true;
}

bool wake_dispatcher(State& s, int i) {
    if (s.dispatcher.step == ASLEEP) s.dispatcher.step = LOOK;
    return leave_wakeup(s.producer[i]);
}

bool set_space_parked(State& s, int i) {
    Producer& p = s.producer[i];
    s.space_word |= 1;
    p.space_word = s.space_word;
    p.step = mutant.no_look_again_for_space ? WAIT_FOR_SPACE : LOOK_AGAIN_FOR_SPACE;
    return true;
}

bool look_again_for_space(State& s, int i) {
    Producer& p = s.producer[i];
    if (fits(s, p.tail, p.units) || !(p.tail == s.tail)) return start_over(p);
    p.step = WAIT_FOR_SPACE;
    return true;
}

bool wait_for_space(State& s, int i) {
    Producer& p = s.producer[i];
    bool unchanged = p.space_word == s.space_word;
    start_over(p);
    if (unchanged) p.step = ASLEEP_FOR_SPACE;
    return true;
}

bool step_producer(State& s, int i, int choice) {
    int8_t step = s.producer[i].step;
    if (step == LOAD_TAIL) return load_tail(s, i, choice);
    if (choice != 0) return false;
    switch (step) {
        case HELP: return help(s, i);
        case CHECK_SPACE: return check_space(s, i);
        case CAS_TAIL: return cas_tail(s, i);
        case PUBLISH: return publish(s, i);
        case COPY: return copy_unit(s, i);
        case COMMIT: return commit(s, i);
        case GIVE_UP: return give_up(s, i);
        case TURN_PARKED: return turn_parked(s, i);
        case WAKE_DISPATCHER: return wake_dispatcher(s, i);
        case SET_SPACE_PARKED: return set_space_parked(s, i);
        case LOOK_AGAIN_FOR_SPACE: return look_again_for_space(s, i);
        case WAIT_FOR_SPACE: return wait_for_space(s, i);
        default: return false;
    }
}

// ---------------------------------------------------------------- the dispatcher's steps

bool look_anew(Dispatcher& d) {
    d.step = LOOK;
    d.tail = {};
    d.word = {};
    d.head = d.unit = 0;
    return true;
}

bool head_needs_attention(const State& s) {
    if (s.read_pos == s.tail.pos) return false;
    const Word& word = word_at(s, s.read_pos);
    if (word.state == FREE) return !mutant.no_dispatcher_help;
    return word.state != BUSY || is_dead(s, word.owner) || options.fence;
}

bool may_be_released(const State& s, const Word& word) {
    return word.state != FENCED || is_dead(s, word.owner) || mutant.reclaim_on_fence;
}

bool release_is_possible(const State& s) {
    const Dispatcher& d = s.dispatcher;
    return d.release_pos < s.read_pos && may_be_released(s, word_at(s, d.release_pos));
}

bool anything_to_do(const State& s) {
    return head_needs_attention(s) || release_is_possible(s) || s.dispatcher.release_pos != s.free_pos;
}

bool read_head(State& s) {
    if (!head_needs_attention(s)) return false;
    s.dispatcher.tail = s.tail;
    s.dispatcher.head = s.read_pos;
    s.dispatcher.step = READ_WORD;
    return true;
}

int8_t step_for_busy(const State& s, int owner) {
    if (!is_dead(s, owner)) return options.fence ? FENCE : LOOK;
    return mutant.deliver_busy_of_dead ? DELIVER : ABORT;
}

// The tail was loaded before the word. So if the word is FREE, the head was the newest claim then, and
// the loaded tail describes it: nothing has to be loaded again in order to help.
bool read_word(State& s) {
    Dispatcher& d = s.dispatcher;
    d.word = word_at(s, d.head);
    if (d.word == free_word(d.head)) {
        head_has_known_length(s, d.tail);
        d.step = HELP_HEAD;
        return true;
    }
    only_headers_are_read_as_headers(d.word, d.head);
    d.tail = {};
    if (d.word.state == COMMITTED) d.step = mutant.advance_before_deliver ? ADVANCE : DELIVER;
    else d.step = d.word.state == BUSY ? step_for_busy(s, d.word.owner) : int8_t{ADVANCE};
    return d.step == LOOK ? look_anew(d) : true;
}

bool help_head(State& s) {
    publish_header(s, s.dispatcher.tail);
    return look_anew(s.dispatcher);
}

bool replace_busy(State& s, WordState state, bool by_store) {
    Dispatcher& d = s.dispatcher;
    Word skipped = d.word;
    skipped.state = state;
    Word& word = word_at(s, d.head);
    if (by_store) word = d.word;
    bool replaced = compare_and_swap(word, d.word, skipped);
    Claim& claim = claim_at(s, d.head);
    if (replaced && claim.fate == OPEN) claim.fate = DROPPED;
    return look_anew(d);
}

bool abort_record(State& s) { return replace_busy(s, ABORTED, false); }
bool fence_record(State& s) { return replace_busy(s, FENCED, mutant.fence_by_store); }

bool deliver(State& s) {
    Dispatcher& d = s.dispatcher;
    only_claimed_and_committed_is_delivered(s, d.word, d.head);
    no_torn_payload(s, d.word, d.head);
    fifo_per_claim_order(s, d.head);
    delivered_again_only_after_a_crash(s, d.head);
    Claim& claim = claim_at(s, d.head);
    claim.fate = DELIVERED;
    claim.deliveries++;
    if (mutant.advance_before_deliver) return look_anew(d);
    d.step = ADVANCE;
    return true;
}

bool advance_read_pos(State& s) {
    Dispatcher& d = s.dispatcher;
    s.read_pos = d.head + d.word.units;
    d.restarted = 0;
    if (!mutant.advance_before_deliver || d.word.state != COMMITTED) return look_anew(d);
    d.step = DELIVER;
    return true;
}

bool begin_release(State& s) {
    Dispatcher& d = s.dispatcher;
    if (!release_is_possible(s)) return false;
    Word word = word_at(s, d.release_pos);
    if (word == free_word(d.release_pos + options.capacity)) {  // by a dispatcher that crashed then
        d.release_pos++;
        return true;
    }
    only_headers_are_read_as_headers(word, d.release_pos);
    d.word = word;
    bool first_unit_first = mutant.release_first_unit_first || mutant.release_header_only;
    d.unit = first_unit_first ? 0 : word.units - 1;
    d.step = RELEASE_UNIT;
    return true;
}

bool release_unit(State& s) {
    Dispatcher& d = s.dispatcher;
    space_not_released_under_live_writer(s, d.release_pos);
    int pos = d.release_pos + d.unit;
    // The payload stays in the real ring; here it is forgotten, as it never equals a later claim's.
    unit_at(s, pos) = {free_word(pos + options.capacity), kNowhere};
    int last = mutant.release_first_unit_first ? d.word.units - 1 : 0;
    if (d.unit != last) {
        d.unit += mutant.release_first_unit_first ? 1 : -1;
        return true;
    }
    d.release_pos += d.word.units;
    return look_anew(d);
}

bool publish_free_pos(State& s) {
    Dispatcher& d = s.dispatcher;
    if (d.release_pos == s.free_pos) return false;
    committed_is_delivered_before_release(s, s.free_pos, d.release_pos);
    for (int pos = s.free_pos; pos < d.release_pos; pos++) claim_at(s, pos) = {};
    s.free_pos = d.release_pos;
    if (options.park) d.step = TURN_SPACE_PARKED;
    return true;
}

bool turn_space_parked(State& s) {
    Dispatcher& d = s.dispatcher;
    if (!(s.space_word & 1)) return look_anew(d);
    s.space_word = mutant.plain_space_flag ? 0 : (s.space_word + 1) & 15;
    d.step = WAKE_PRODUCERS;
    return true;
}

bool wake_producers(State& s) {
    for (Producer& p : s.producer)
        if (p.step == ASLEEP_FOR_SPACE) p.step = LOAD_TAIL;
    return look_anew(s.dispatcher);
}

bool find_nothing_to_do(State& s) {
    if (!options.park || anything_to_do(s)) return false;
    s.dispatcher.step = SET_PARKED;
    return true;
}

bool set_parked(State& s) {
    s.parked = 1;
    s.dispatcher.step = mutant.no_look_again ? WAIT : LOOK_AGAIN;
    return true;
}

bool look_again(State& s) {
    if (anything_to_do(s)) {
        s.parked = 0;
        return look_anew(s.dispatcher);
    }
    s.dispatcher.step = WAIT;
    return true;
}

bool wait_parked(State& s) {
    s.dispatcher.step = s.parked ? ASLEEP : LOOK;
    return true;
}

bool look(State& s, int choice) {
    switch (choice) {
        case READ_HEAD: return read_head(s);
        case RELEASE_NEXT: return begin_release(s);
        case PUBLISH_FREE_POS: return publish_free_pos(s);
        case PARK: return find_nothing_to_do(s);
        default: return false;
    }
}

bool step_dispatcher(State& s, int choice) {
    int8_t step = s.dispatcher.step;
    if (step == LOOK) return look(s, choice);
    if (choice != 0) return false;
    switch (step) {
        case READ_WORD: return read_word(s);
        case HELP_HEAD: return help_head(s);
        case ABORT: return abort_record(s);
        case FENCE: return fence_record(s);
        case DELIVER: return deliver(s);
        case ADVANCE: return advance_read_pos(s);
        case RELEASE_UNIT: return release_unit(s);
        case TURN_SPACE_PARKED: return turn_space_parked(s);
        case WAKE_PRODUCERS: return wake_producers(s);
        case SET_PARKED: return set_parked(s);
        case LOOK_AGAIN: return look_again(s);
        case WAIT: return wait_parked(s);
        default: return false;
    }
}

// ---------------------------------------------------------------- the environment's steps

bool kill_producer(State& s, int i) {
    Producer& p = s.producer[i];
    if (s.kills_left == 0 || p.step == DEAD || p.step == DONE) return false;
    bool owes_wakeup = is_writing(p) || p.step == TURN_PARKED || p.step == WAKE_DISPATCHER;
    if (options.park && owes_wakeup) s.wakeup_owed = 1;
    p = producer_at(DEAD, 0);
    s.kills_left--;
    return true;
}

bool crash_dispatcher(State& s) {
    Dispatcher& d = s.dispatcher;
    bool nothing_in_hand = d.step == LOOK && d.release_pos == s.free_pos;
    if (s.crashes_left == 0 || nothing_in_hand) return false;
    if (d.step == TURN_SPACE_PARKED || d.step == WAKE_PRODUCERS) s.wakeup_owed = 1;
    d = {};
    d.release_pos = s.free_pos;
    d.restarted = 1;
    s.crashes_left--;
    return true;
}

bool note_death(State& s, int i) {
    Producer& p = s.producer[i];
    if (s.takeovers_left == 0 || p.step != DEAD || p.tail_at_death != kNowhere) return false;
    p.tail_at_death = s.tail.pos;
    return true;
}

// A newcomer with one record to write takes over a dead producer's owner number.
bool take_over_owner(State& s, int i) {
    Producer& p = s.producer[i];
    if (s.takeovers_left == 0 || p.step != DEAD || p.tail_at_death == kNowhere) return false;
    if (s.free_pos < p.tail_at_death && !mutant.reuse_owner_early) return false;
    p = producer_at(LOAD_TAIL, 1);
    s.takeovers_left--;
    return true;
}

// Taken only when nothing else can move, and only if a death is to blame: otherwise the backstop would
// hide every lost wake-up.
bool backstop(State& s) {
    if (!s.wakeup_owed || mutant.no_backstop) return false;
    s.wakeup_owed = 0;
    if (s.dispatcher.step == ASLEEP) s.dispatcher.step = LOOK;
    wake_producers(s);
    return true;
}

// ---------------------------------------------------------------- moves

enum MoveKind { PRODUCER_STEP, DISPATCHER_STEP, BACKSTOP, KILL, CRASH, NOTE_DEATH, TAKE_OVER };

struct Move {
    MoveKind kind;
    int who, choice;
};

bool is_environment(const Move& move) { return move.kind > BACKSTOP; }

std::vector<Move> all_moves() {
    std::vector<Move> moves;
    for (int i = 0; i < options.producers; i++)
        for (int c = 0; c < options.max_units; c++) moves.push_back({PRODUCER_STEP, i, c});
    for (int c = 0; c < kDispatcherChoices; c++) moves.push_back({DISPATCHER_STEP, 0, c});
    moves.push_back({BACKSTOP, 0, 0});
    for (MoveKind kind : {KILL, NOTE_DEATH, TAKE_OVER})
        for (int i = 0; i < options.producers; i++) moves.push_back({kind, i, 0});
    moves.push_back({CRASH, 0, 0});
    return moves;
}

bool apply(State& s, const Move& move) {
    switch (move.kind) {
        case PRODUCER_STEP: return step_producer(s, move.who, move.choice);
        case DISPATCHER_STEP: return step_dispatcher(s, move.choice);
        case BACKSTOP: return backstop(s);
        case KILL: return kill_producer(s, move.who);
        case CRASH: return crash_dispatcher(s);
        case NOTE_DEATH: return note_death(s, move.who);
        case TAKE_OVER: return take_over_owner(s, move.who);
    }
    return false;
}

// ---------------------------------------------------------------- symmetry
//
// The protocol looks at positions only modulo the capacity and at their differences, and producers
// differ only by their number: states that differ in nothing else are one state.

using Order = std::array<int8_t, kMaxProducers + 1>;  // new place -> old place; PAD stays

void shift(int8_t& pos) {
    if (pos != kNowhere) pos -= options.capacity;
}

void shift(Word& word) {
    bool has_position = word.state == FREE ? !mutant.free_without_position : word.state != PAYLOAD;
    if (has_position) shift(word.pos);
}

void shift_producer(Producer& p) {
    if (p.tail.units) shift(p.tail.pos);
    shift(p.start);
    shift(p.tail_at_death);
}

// Only when free_pos has passed a lap; a stale position then turns negative, and stays comparable.
void normalise_positions(State& s) {
    if (s.free_pos < options.capacity) return;
    for (int8_t* pos : {&s.tail.pos, &s.read_pos, &s.free_pos}) shift(*pos);
    for (int u = 0; u < options.capacity; u++) {
        shift(s.unit[u].word);
        shift(s.unit[u].payload);
    }
    for (Producer& p : s.producer) shift_producer(p);
    shift(s.dispatcher.release_pos);  // it has just moved free_pos, and holds nothing else
}

void rename_owners(State& s, const Order& old_place) {
    Order new_place{};
    for (int i = 0; i <= kMaxProducers; i++) new_place[old_place[i]] = i;
    auto rename_word = [&](Word& w) {
        if (w.state >= BUSY && w.state <= PAD) w.owner = new_place[w.owner];
    };
    auto rename_tail = [&](Tail& t) {
        if (t.units) t.owner = new_place[t.owner];
    };
    rename_tail(s.tail);
    rename_tail(s.dispatcher.tail);
    rename_word(s.dispatcher.word);
    for (int u = 0; u < options.capacity; u++) rename_word(s.unit[u].word);
    for (int i = 0; i < options.producers; i++) rename_tail(s.producer[i].tail);
}

bool goes_before(const Producer& a, const Producer& b) {
    auto key = [](Producer p) {
        p.tail.owner = 0;  // a number, which sorting changes
        return p;
    };
    Producer ka = key(a), kb = key(b);
    return std::memcmp(&ka, &kb, sizeof ka) < 0;
}

Order sort_producers(State& s) {
    Order order{};
    for (int i = 0; i <= kMaxProducers; i++) order[i] = i;
    bool moved = false;
    for (int i = 1; i < options.producers; i++)
        for (int j = i; j > 0 && goes_before(s.producer[j], s.producer[j - 1]); j--) {
            std::swap(s.producer[j], s.producer[j - 1]);
            std::swap(order[j], order[j - 1]);
            moved = true;
        }
    if (moved) rename_owners(s, order);
    return order;
}

Order canonicalise(State& s) {
    if (!options.reduction) return {0, 1, 2, 3, kPadOwner};
    normalise_positions(s);
    return sort_producers(s);
}

// ---------------------------------------------------------------- the search

uint64_t mix(uint64_t a, uint64_t b) {
    unsigned __int128 product = (unsigned __int128)(a ^ 0x9e3779b97f4a7c15u) * (b ^ 0xe7037ed1a0b428dbu);
    return uint64_t(product) ^ uint64_t(product >> 64);
}

uint64_t fingerprint(const State& s) {
    const char* bytes = reinterpret_cast<const char*>(&s);
    uint64_t hash = 0;
    for (size_t at = 0; at < sizeof s; at += sizeof(uint64_t)) {
        uint64_t chunk = 0;
        std::memcpy(&chunk, bytes + at, std::min(sizeof chunk, sizeof s - at));
        hash = mix(hash ^ chunk, hash + at);
    }
    return hash ? hash : 1;  // 0 marks an empty slot
}

class FingerprintSet {  // flat, linear probing, at most three quarters full
public:
    bool insert(uint64_t key) {
        if (!place(slots_, key)) return false;
        if (++size_ * 4 > slots_.size() * 3) grow();
        return true;
    }

private:
    static bool place(std::vector<uint64_t>& slots, uint64_t key) {
        size_t mask = slots.size() - 1, at = key & mask;
        for (; slots[at]; at = (at + 1) & mask)
            if (slots[at] == key) return false;
        slots[at] = key;
        return true;
    }

    void grow() {
        std::vector<uint64_t> larger(slots_.size() * 2);
        for (uint64_t key : slots_)
            if (key) place(larger, key);
        slots_.swap(larger);
    }

    std::vector<uint64_t> slots_ = std::vector<uint64_t>(1 << 16);
    size_t size_ = 0;
};

struct Search {
    std::vector<Move> moves = all_moves();
    FingerprintSet seen;
    std::vector<uint32_t> parent;  // by state number, in the order of discovery
    std::vector<uint8_t> move;     // the one that led there from the parent
    std::vector<State> level, next_level;
    uint32_t level_start = 0;

    void add(State& s, uint32_t from, uint8_t by) {
        canonicalise(s);
        if (!seen.insert(fingerprint(s))) return;
        parent.push_back(from);
        move.push_back(by);
        next_level.push_back(s);
    }

    // Returns the number of the violating move, or the number of moves if a quiescent state is at fault.
    size_t expand(const State& s, uint32_t number, Violation& violation) {
        bool quiescent = true;
        size_t m = 0;
        try {
            for (; m < moves.size(); m++) {
                if (moves[m].kind == BACKSTOP && !quiescent) continue;
                State next = s;
                if (!apply(next, moves[m])) continue;
                if (!is_environment(moves[m])) quiescent = false;
                add(next, number, uint8_t(m));
            }
            if (quiescent) check_quiescent(s);
        } catch (const Violation& found) {
            violation = found;
            return m;
        }
        return SIZE_MAX;
    }
};

// ---------------------------------------------------------------- the trace

std::string describe(const State& s, const Move& move, const Order& name) {
    std::string who = "P" + std::to_string(name[move.who]) + " ";
    switch (move.kind) {
        case PRODUCER_STEP: {
            const Producer& p = s.producer[move.who];
            std::string text = who + kProducerStepNames[p.step];
            if (p.step == LOAD_TAIL && p.units == 0) text += " (record of " + std::to_string(move.choice + 1) + ")";
            return text;
        }
        case DISPATCHER_STEP:
            return std::string("D  ") + (s.dispatcher.step == LOOK ? kDispatcherChoiceNames[move.choice]
                                                                   : kDispatcherStepNames[s.dispatcher.step]);
        case BACKSTOP: return "-- the backstop ends every wait";
        case KILL: return who + "is killed at: " + kProducerStepNames[s.producer[move.who].step];
        case CRASH: return std::string("D  crashes at: ") + kDispatcherStepNames[s.dispatcher.step];
        case NOTE_DEATH: return "-- the death of " + who + "is noted";
        case TAKE_OVER: return "-- a newcomer takes over the owner number of " + who;
    }
    return "";
}

std::string describe(const State& s, const Order& name) {
    static const char* const letters = "FBCAXP*";  // X: fenced, *: payload
    char text[160];
    std::string owner = s.tail.owner == kPadOwner ? "PAD" : "P" + std::to_string(name[s.tail.owner]);
    if (s.tail.units == 0) owner = "-";
    int n = std::snprintf(text, sizeof text, "tail=%d/%d/%s read=%d free=%d |", s.tail.pos, s.tail.units, owner.c_str(),
                          s.read_pos, s.free_pos);
    for (int u = 0; u < options.capacity; u++) {
        const Word& w = s.unit[u].word;
        bool owned = w.state >= BUSY && w.state <= FENCED;
        n += std::snprintf(text + n, sizeof text - n, " %c", letters[w.state]);
        if (owned) n += std::snprintf(text + n, sizeof text - n, "%d", name[w.owner]);
        if (w.state != PAYLOAD) n += std::snprintf(text + n, sizeof text - n, "@%d", w.pos);
    }
    return text;
}

// Replays the moves from the start. Sorting renames producers on the way; `name` keeps their first names.
// A producer that takes over an owner number keeps its predecessor's name.
void print_trace(const Search& search, uint32_t number, size_t last_move) {
    std::vector<uint8_t> path;
    for (uint32_t at = number; at != 0; at = search.parent[at]) path.push_back(search.move[at]);
    std::reverse(path.begin(), path.end());
    if (last_move < search.moves.size()) path.push_back(uint8_t(last_move));
    State s = initial_state();
    Order name = canonicalise(s);
    for (size_t i = 0; i < path.size(); i++) {
        const Move& move = search.moves[path[i]];
        std::string step = describe(s, move, name);
        try {
            apply(s, move);
        } catch (const Violation&) {
            step += "   <-- here";
        }
        Order old_place = canonicalise(s), renamed{};
        for (int k = 0; k <= kMaxProducers; k++) renamed[k] = name[old_place[k]];
        name = renamed;
        std::printf("  %3zu. %-40s %s\n", i + 1, step.c_str(), describe(s, name).c_str());
    }
}

enum ExitCode { PASSED = 0, VIOLATED = 1, MISUSED = 2, TOO_LARGE = 3 };

int report(const Search& search, uint32_t number, size_t move, const Violation& violation) {
    std::printf("VIOLATED %s: %s (after %zu states%s%s)\n", violation.invariant, violation.message,
                search.parent.size(), options.mutant.empty() ? "" : ", mutant ", options.mutant.c_str());
    print_trace(search, number, move);
    return VIOLATED;
}

int explore() {
    Search search;
    State start = initial_state();
    search.add(start, 0, 0);
    while (!search.next_level.empty()) {
        search.level.swap(search.next_level);
        search.next_level.clear();
        uint32_t first = uint32_t(search.parent.size() - search.level.size());
        for (size_t i = 0; i < search.level.size(); i++) {
            Violation violation{};
            size_t move = search.expand(search.level[i], first + uint32_t(i), violation);
            if (move != SIZE_MAX) return report(search, first + uint32_t(i), move, violation);
        }
        if (search.parent.size() > options.max_states) {
            std::printf("GAVE UP after %zu states: --max-states %llu\n", search.parent.size(),
                        (unsigned long long)options.max_states);
            return TOO_LARGE;
        }
    }
    std::printf("OK %zu states: producers=%d records=%d capacity=%d units=%d kills=%d crashes=%d takeovers=%d"
                "%s%s%s%s\n",
                search.parent.size(), options.producers, options.records, options.capacity, options.max_units,
                options.kills, options.crashes, options.takeovers, options.fence ? " fence" : "",
                options.park ? " park" : "", options.mutant.empty() ? "" : " mutant=", options.mutant.c_str());
    return PASSED;
}

// ---------------------------------------------------------------- the command line

int usage() {
    std::fprintf(stderr,
                 "usage: ring_model [--producers N] [--records K] [--capacity C] [--units U] [--kills M]\n"
                 "                  [--crashes R] [--takeovers T] [--fence] [--park] [--mutant NAME] [--max-states N]\n"
                 "                  [--no-reduction]\n"
                 "exit code: 0 passed, 1 an invariant is violated, 2 misuse, 3 more than --max-states\n"
                 "mutants, and the rule that each one breaks:\n");
    for (const auto& m : kMutations) std::fprintf(stderr, "  %-26s%s\n", m.name, m.broken_rule);
    return MISUSED;
}

bool set_mutant(const std::string& name) {
    for (const auto& mutation : kMutations)
        if (name == mutation.name) return mutant.*mutation.flag = true;
    return false;
}

bool parse_number(const std::string& flag, const char* text) {
    struct {
        const char* flag;
        int* value;
    } const numbers[] = {{"--producers", &options.producers}, {"--records", &options.records},
                         {"--capacity", &options.capacity},   {"--units", &options.max_units},
                         {"--kills", &options.kills},         {"--crashes", &options.crashes},
                         {"--takeovers", &options.takeovers}};
    char* end = nullptr;
    long long value = std::strtoll(text, &end, 10);
    if (*text == 0 || *end || value < 0) return false;
    if (flag == "--max-states") return options.max_states = uint64_t(value), true;
    for (const auto& number : numbers)
        if (flag == number.flag) return *number.value = int(value), true;
    return false;
}

bool parse(int argc, char** argv) {
    for (int i = 1; i < argc; i++) {
        std::string flag = argv[i];
        if (flag == "--fence") options.fence = true;
        else if (flag == "--park") options.park = true;
        else if (flag == "--no-reduction") options.reduction = false;
        else if (++i == argc) return false;
        else if (flag == "--mutant") {
            options.mutant = argv[i];
            if (!set_mutant(options.mutant)) return false;
        } else if (!parse_number(flag, argv[i])) return false;
    }
    return true;
}

bool options_make_sense() {
    bool positions_fit = options.producers * options.records + options.takeovers <= 12;
    bool in_range = options.producers >= 1 && options.producers <= kMaxProducers && options.capacity <= kMaxCapacity &&
                    options.max_units >= 1 && options.max_units <= options.capacity && options.kills <= 100 &&
                    options.crashes <= 100 && options.takeovers <= 100 && options.max_states < UINT32_MAX;
    // Padding is no record and wakes nobody: with a parked dispatcher it must fit beside a record.
    bool padding_fits = !options.park || options.capacity >= 2 * options.max_units - 1;
    return positions_fit && in_range && padding_fits;
}

}  // namespace

int main(int argc, char** argv) {
    if (!parse(argc, argv) || !options_make_sense()) return usage();
    return explore();
}
