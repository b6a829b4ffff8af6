// sleep.pml - [sleep] and [fence]: a loop goes to sleep while posters, a stop and a wake() are on their way
//
// What stands for what
//   poster        entrance::post_to, slot_array::publish, doorbell::look, doorbell::move
//   teller        doorbell::tell: wake() and stop()
//   loop          runner::turn, park(), wakeup::choose_fence, publish, barrier, wake_self, expect_stream
//   word          doorbell::word: mode and bits; every change is one atomic step, as the CAS that it is
//   lap[i]        the lap of slot i as the loop sees it
//   buffered[p]   poster p's store buffer: the slot whose plain P1 others do not see yet. It drains at
//                 any time; a locked instruction of p drains it, and so does a barrier
//   futex_wait    sleeps only if the word still holds what was expected; wake_one ends that sleep
//   edge          the bell: edge-triggered, so a wait, also one that does not block, takes it away
//
// Store buffers are those of x86-TSO. One place each: a poster posts once here, and its next claim would
// be a locked CAS that drains it; the loop's stores are read-modify-writes or seq_cst. Weaker CPUs may
// also read the flag or the word before P1 is even begun; the signal fence keeps the compiler from it,
// and a barrier is a full fence on any CPU, as here. FLAG_READ_EARLY is what that would look like.
//
// choose_fence() and expect_stream() choose at will, not by a count of posts, a bounded number of times.
//
// Left out: ringers and the bell's life (doorbell.pml), spill and close (spill.pml, close.pml; what L2
// asks of them is one more published thing), failing CASes without a cause (they repeat), the clock.
// Wakes without a cause, by a deadline or a descriptor, are `spurious`: bounded, or they would cure what
// they must not.
//
// mutant: NO_RECHECK expects: assertion violated (ran==2) -- L2 dropped
// mutant: RECHECK_FIRST expects: acceptance cycle -- L2 before L1
// mutant: BARRIER_FIRST expects: assertion violated (ran==2) -- the barrier before L1
// mutant: NO_BARRIER expects: acceptance cycle -- asymmetric, and nobody pays
// mutant: NO_FENCE expects: assertion violated (ran==2) -- symmetric, P1 a plain store
// mutant: FLAG_READ_EARLY expects: assertion violated (ran==2) -- look() does not ask for the flag again
// mutant: FLAG_LATE expects: assertion violated (ran==2) -- to symmetric: the barrier, then the flag
// mutant: NOTHING_OWED expects: assertion violated (ran==2) -- what a refused publish() returned unpaid is forgotten
// mutant: RING_BY_EXCHANGE expects: assertion violated  !(asked) -- exchange(awake) instead of the CAS erases a wake() or a stop
// mutant: SLEEP_BY_STORE expects: assertion violated  !(asked) -- L1 a plain store erases a wake() or a stop
// mutant: DEAF_SLEEP expects: acceptance cycle -- publish() does not refuse a stop
// mutant: DEAF_TO_WANTED expects: assertion violated  !(asked) -- publish() does not refuse a wanted
// mutant: POLL_BETWEEN expects: acceptance cycle -- a poll between L2 and the wait swallows the ring
// mutant: RING_WHAT_COUNTS expects: invalid end state -- the poster rings by a counter of watches, not by the word

#define IDLE 0
#define AWAKE 1
#define IN_CHANNEL 2
#define IN_POLLER 3
#define WANTED 8
#define STOP 16
#define MODE(w) ((w) & 7)
#define WITH(w, m) (((w) & ~7) | (m))
#define UP(w) ((((w) & ~WANTED) & ~7) | AWAKE)
#ifdef MUTANT_DEAF_SLEEP
#define URGENT WANTED
#elif defined(MUTANT_DEAF_TO_WANTED)
#define URGENT STOP
#else
#define URGENT (WANTED | STOP)
#endif
#define ASLEEP(w) (MODE(w) == IN_CHANNEL || MODE(w) == IN_POLLER)

#ifdef LIVE
#define TASKS 1   // fewer states; the quiet check of the other search has two posters and changes of the fence
#else
#define TASKS 2
#endif
#define NONE 7

byte word = AWAKE;
bit symmetric = 1;
byte tail, head, ran;
bool lap[TASKS + 1];
byte buffered[3] = NONE;  // the teller's stays empty: it only locks
bool edge, on_word, returned, told, asked;
bit watches;
byte scene;               // what happens beside the posts: 0 nothing or a spurious wake, 1 a wake(), 2 an early stop

#define all_ran (ran == TASKS)

inline drain(p) {
  d_step {
    if
    :: buffered[p] != NONE -> lap[buffered[p]] = true; buffered[p] = NONE
    :: else
    fi
  }
}

// doorbell::move, whose CASes that fail repeat: the one that succeeds is the step. [bell] B2, [sleep] P2.
inline move(p, bits) {
  atomic {
    drain(p);
    seen = word;
    if
    :: ASLEEP(seen) -> word = UP(seen) | bits
    :: else -> word = seen | bits
    fi;
#ifdef MUTANT_RING_BY_EXCHANGE
    if
    :: bits == 0 -> word = AWAKE
    :: else
    fi;
#endif
  }
#ifdef MUTANT_RING_WHAT_COUNTS
  if
  :: bits == 0 && ASLEEP(seen) -> seen = (counted -> IN_POLLER : IN_CHANNEL)
  :: else
  fi;
#endif
  d_step {
    if
    :: MODE(seen) == IN_CHANNEL -> on_word = false        // rouse()
    :: MODE(seen) == IN_POLLER -> edge = true             // wake_poller()
    :: else
    fi;
    seen = 0                                              // dead: fewer states
  }
}

proctype poster(byte p) {
  byte seen, slot;
  bit strong;
#ifdef MUTANT_RING_WHAT_COUNTS
  bit counted;
#endif
  atomic { strong = symmetric; drain(p); slot = tail; tail++ }   // strong(), a hint; ring::claim, a locked CAS
  atomic {                                                       // slot_array::publish: [sleep] P1
    if
#ifndef MUTANT_NO_FENCE
    :: strong -> lap[slot] = true                                // seq_cst
#endif
    :: else -> buffered[p] = slot                                // release: plain
    fi;
    slot = 0
  }
#ifdef MUTANT_RING_WHAT_COUNTS
  counted = watches;
#endif
#ifndef MUTANT_FLAG_READ_EARLY
  if                                                             // doorbell::look
  :: !strong -> atomic {
      if
      :: symmetric -> drain(p); strong = true                    // [fence] read after P1: fetch_add(0)
      :: else
      fi
    }
  :: else
  fi;
#endif
  atomic { seen = word; strong = false }                         // [sleep] P2
  if
  :: ASLEEP(seen) -> move(p, 0)                                  // ring_if_asleep
  :: else
  fi
}

// One of: nobody, wake(), stop(). When nothing moves any more, all must have run; then a stop.
proctype teller() {
  byte seen;
  bit counted;
  if
  :: scene == 0
  :: scene == 1 -> asked = true; move(2, WANTED)                 // basic_loop::wake
  :: scene == 2 -> goto stop
  fi;
#ifdef LIVE
  goto end;
#else
  timeout -> assert(all_ran); assert(!asked);
#endif
stop:
  move(2, STOP); told = true;                                    // basic_loop::stop
end: skip
}

// Drains store buffers, some time.
active proctype memory() {
end: do
  :: buffered[0] != NONE -> drain(0)
  :: buffered[1] != NONE -> drain(1)
  od
}

active proctype loop() {
  byte mode;
#ifdef LIVE
  byte spurious = 0, switches = 0;
#else
  byte spurious = 0, switches = 1;
#endif
  bit owes, news, late;
  atomic {
    if
    :: symmetric = 0
    :: skip
    fi;
    if                                                           // not all that may happen happens at once
    :: scene = 1
    :: scene = 2
#ifdef LIVE
    :: scene = 0
#else
    :: scene = 0; spurious = 1
    :: scene = 0; switches = 2
#endif
    fi;
    run poster(0);
#ifndef LIVE
    run poster(1);
#endif
    run teller()
  }
turn:
  atomic {
    asked = false; mode = 0; news = false;
    do                                                           // drain_ingress
    :: lap[head] -> head++; ran++                                // [slot] S3
    :: else -> break
    od;
    if
    :: word & STOP -> goto leave                                 // stop_seen
    :: else
    fi;
    if
    :: watches -> edge = false                                   // poll_without_sleeping
    :: else
    fi;
    if
    :: switches > 0 && symmetric -> symmetric = 0; switches--    // end_turn: expect_stream
    :: skip
    fi
  }
  // park(). The head is ours and does not move until the sleep is over, so it is its own mark.
  atomic {
    if
    :: mode = IN_CHANNEL; watches = 0
    :: mode = IN_POLLER; watches = 1
    fi;
#ifdef MUTANT_RECHECK_FIRST
    news = lap[head];
#endif
#ifdef MUTANT_NOTHING_OWED
    owes = !symmetric;
#else
    owes = owes || !symmetric;                                   // choose_fence
#endif
    if
    :: switches > 0 && symmetric -> symmetric = 0; owes = true; switches--   // [fence] the flag, then a barrier
#ifdef MUTANT_FLAG_LATE
    :: switches > 0 && !symmetric -> late = true; switches--
#else
    :: switches > 0 && !symmetric -> symmetric = 1; switches--   // [fence]
#endif
    :: skip
    fi
  }
#ifdef MUTANT_BARRIER_FIRST
  if
  :: owes -> owes = false; drain(0); drain(1)
  :: else
  fi;
#endif
#ifdef MUTANT_SLEEP_BY_STORE
  if
  :: word & URGENT
  :: else -> word = mode; goto published
  fi;
#endif
  atomic {                                                       // publish
    if
    :: word & URGENT -> word = word & ~WANTED; goto turn         // forget(wanted)
    :: else -> word = WITH(word, mode)                           // [sleep] L1
    fi
  }
published: skip;
#ifndef MUTANT_NO_BARRIER
  if                                                             // barrier()
  :: owes ->
    owes = false;
    if
    :: skip                                                      // issue()
    :: switches > 0 -> atomic { symmetric = 1; switches-- }      // refused: the flag, then issue_last()
    fi;
    drain(0); drain(1)
  :: else
  fi;
#endif
#ifdef MUTANT_FLAG_LATE
  if
  :: late -> late = false; symmetric = 1
  :: else
  fi;
#endif
#if !defined(MUTANT_NO_RECHECK) && !defined(MUTANT_RECHECK_FIRST)
  news = lap[head];                                              // [sleep] L2
#endif
  if
  :: news -> goto up
  :: else
  fi;
#ifdef MUTANT_POLL_BETWEEN
  edge = false;
#endif
  if                                                             // sleep()
  :: mode == IN_CHANNEL ->
    atomic { on_word = (word == mode) }                          // futex_wait
    if
    :: !on_word
    :: atomic { spurious > 0 && on_word -> spurious--; on_word = false }
    fi
  :: else ->
    if
    :: atomic { edge -> edge = false }
    :: spurious > 0 -> spurious--
    fi
  fi;
up:
  atomic {                                                       // wake_self
    if
    :: ASLEEP(word) -> word = UP(word)
    :: else
    fi
  }
  goto turn;
leave:
  returned = true
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
#define settled (returned || (all_ran && !asked && !told))
ltl live { <> [] settled }
#endif
