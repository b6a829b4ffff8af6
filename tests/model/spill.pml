// spill.pml - order: posts that go through the ring, and around it through the spill
//
// What stands for what
//   claim, post   queue::offer, queue::claim, ring::claim, queue::offer_spill, spill::push
//   loop          runner::drain, queue::run_next, spill::take
//   tail, head_out, lap   of ring.hpp and slot_array.hpp; a lap is the index + 1, as there
//   chain, next   spill::head_ and node::next; a node is named by its task, and made once
//   before[t]     which posts had returned when post t began: those must run before t
//
// "Runs once" and "runs after all that had returned before it was posted" is asked of every task. That
// is more than FIFO per producer: it holds between producers too.
//
// No store buffers: claims, tickets and pushes are locked or follow a locked instruction in one order
// (tail_, head_ are seq_cst), and a lap or a ready flag that is late is a producer that is slow, which
// is in here anyway. Weaker CPUs: the ticket's load of the tail is seq_cst and follows the check of the
// spill, both by the model's order. known_head_ is left out: it is an older head, so it only makes a
// claim ask for the head itself. So is the arena: memory is never short here (room.pml). Left out:
// nested runs, and the published head that they hold back ([head]).
//
// mutant: RING_FIRST expects: assertion violated ((ran&before -- the ring until it looks empty, then the spill
// mutant: SPILL_FIRST expects: assertion violated ((ran&before -- the spill whenever it has something
// mutant: AT_TICKET expects: assertion violated ((ran&before -- the entry at the ticket runs before the node
// mutant: NEWEST_FIRST expects: assertion violated ((ran&before -- the chain is not turned round
// mutant: RING_BEHIND_SPILL expects: assertion violated ((ran&before -- a producer does not look whether the spill is empty
// mutant: TICKET_EARLY expects: assertion violated ((ran&before -- the ticket of the post before serves once more
// mutant: CLAIM_BY_STORE expects: assertion violated ((ran&before -- a claim is a load and a store
// mutant: NO_MORE_TAKEN expects: acceptance cycle -- nothing is taken while the ring has nothing

#define CAPACITY 2
#ifdef LIVE
#define A_POSTS 2
#else
#define A_POSTS 3
#endif
#define B_POSTS 2
#define TASKS (A_POSTS + B_POSTS)
#define NONE 7

byte tail, head_out;
byte lap[CAPACITY], task_at[CAPACITY];
byte chain = NONE, next[TASKS] = NONE, ticket[TASKS];
bit ready[TASKS];
byte before[TASKS], returned, ran;    // sets of tasks

proctype producer(byte first; byte posts) {
  byte task, t, h, c;
#ifdef MUTANT_TICKET_EARLY
  byte old = 0;
#endif
  task = first;
  do
  :: task == first + posts -> break
  :: else ->
    before[task] = returned;
again:
#ifndef MUTANT_RING_BEHIND_SPILL
    if
    :: chain != NONE -> goto spilled               // queue::claim: it spills too
    :: else
    fi;
#endif
    t = tail;                                      // ring::claim
retry:
    h = head_out;                                  // [head] H3
    if
    :: t >= h + CAPACITY ->
      if
      :: tail == t -> goto spilled
      :: else -> t = tail; goto retry
      fi
    :: else
    fi;
#ifdef MUTANT_CLAIM_BY_STORE
    tail = t + 1;
#else
    atomic {
      if
      :: tail == t -> tail = t + 1
      :: else -> t = tail; goto retry
      fi
    }
#endif
    task_at[t % CAPACITY] = task;                  // [slot] S1
    lap[t % CAPACITY] = t + 1;                     // [slot] S2, [sleep] P1
    goto done;
spilled:
#ifdef MUTANT_TICKET_EARLY
    ticket[task] = old; old = tail;
#else
    ticket[task] = tail;                           // [spill] K1
#endif
    c = chain;
push:
    next[task] = c;
    atomic {                                       // [spill] K2
      if
      :: chain == c -> chain = task
      :: else -> c = chain; goto push
      fi
    }
    ready[task] = true;                            // [spill] K5
done: skip;
    d_step { returned = returned | (1 << task); task++; t = 0; h = 0; c = 0 }
  od
}

inline take() {
  d_step {
    c = chain; chain = NONE;                       // [spill] K3
    newest = c; oldest = NONE;
#ifdef MUTANT_NEWEST_FIRST
    oldest = c;
    do
    :: c == NONE || next[c] == NONE -> newest = c; break
    :: else -> c = next[c]
    od;
#else
    do
    :: c == NONE -> break
    :: else -> n = next[c]; next[c] = oldest; oldest = c; c = n
    od;
#endif
    if
    :: taken == NONE -> taken = oldest
    :: else -> next[last] = oldest
    fi;
    last = newest;
    c = 0; n = 0; newest = 0; oldest = 0
  }
}

inline execute(t) {
  assert(!(ran & (1 << t)));
  assert((ran & before[t]) == before[t]);
  ran = ran | (1 << t)
}

#define slot_ready (lap[head % CAPACITY] == head + 1)
#ifdef MUTANT_AT_TICKET
#define below (head <= ticket[taken])
#define reached (head >= ticket[taken] && !slot_ready)
#else
#define below (head < ticket[taken])
#define reached (!below)
#endif

active proctype loop() {
  byte head, taken = NONE, last = NONE, c, n, newest, oldest;
  run producer(0, A_POSTS);
  run producer(A_POSTS, B_POSTS);
  do
  :: ran == (1 << TASKS) - 1 -> break
  // run_next, where it has something to run.
  :: else ->
#if defined(MUTANT_RING_FIRST)
    if
    :: slot_ready -> goto slot
    :: else
    fi;
    if
    :: atomic { taken == NONE && chain != NONE -> take() }
    :: slot_ready -> goto slot
    :: taken != NONE && ready[taken] -> goto node
    fi;
    goto next_one;
#elif defined(MUTANT_SPILL_FIRST)
    if
    :: atomic { taken == NONE && chain != NONE -> take() }
    :: taken != NONE && ready[taken] -> goto node
    :: taken == NONE && chain == NONE && slot_ready -> goto slot
    fi;
    goto next_one;
#else
    if
    :: taken == NONE && slot_ready -> goto slot
    :: taken != NONE && below && slot_ready -> goto slot     // [slot] S3
#ifdef MUTANT_NO_MORE_TAKEN
    :: atomic { taken == NONE && chain != NONE && slot_ready -> take() }
#else
    :: atomic { chain != NONE -> take() }                    // front(), take_spilled()
#endif
    :: taken != NONE && reached && ready[taken] -> goto node   // [spill] K6
    fi;
    goto next_one;
#endif
slot:
    atomic {
      c = task_at[head % CAPACITY]; head++;                  // run_slot: the private head moves first
      execute(c); c = 0
    }
    head_out = head;                                         // publish_head: [head] H2
    goto next_one;
node:
    atomic { execute(taken); c = next[taken]; taken = c; c = 0 }
next_one: skip
  od
}

#ifdef LIVE
#define all_ran (ran == (1 << TASKS) - 1)
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> all_ran }
#endif
