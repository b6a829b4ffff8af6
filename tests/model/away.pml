// away.pml - [sleep] for a loop inside a foreign one: `away`, and who borrows the loop meanwhile
//
// What stands for what
//   foreign       a foreign loop: backend_handle() once, then next_timeout() or not, waits for the handle,
//                 poll(): wakeup::enter, runner::turn, leave() with publish, barrier, leave_away
//   poster        entrance::post_to, slot_array::publish, doorbell::look, doorbell::move
//   borrower      watch() or unwatch() from another thread: ownership, give_back, give_back_away
//   teller        doorbell::tell: wake()
//   word          doorbell::word; every change is one atomic step, as the CAS that it is
//   lap[i], buffered[p]     the slot as the loop sees it; a plain P1 in poster p's store buffer
//   bell          the handle is readable: rung, and not heard since by a wait in the loop's own poller
//   on_word       the foreign loop's thread waits on the word for a borrower
//   owner         who may touch the loop's private state: asserted at each touch
//
// Store buffers as in sleep.pml, where changes of the fence are too: here it is one or the other. Weaker
// CPUs: as there; what the owners hand to each other is in hand.pml.
//
// Left out: descriptors (a ready one makes the handle readable by itself), deadlines (the foreign loop
// waits for them, not this one), close (it ends the waiting), ringers (doorbell.pml).
//
// mutant: NO_RECHECK expects: assertion violated (ran== -- L2 dropped on the way out of poll()
// mutant: NO_BARRIER expects: assertion violated (ran== -- asymmetric, and poll() returns without a barrier
// mutant: HEARD_LATE expects: assertion violated (ran== -- the bell is heard once more behind L2
// mutant: AWAY_UNRUNG expects: assertion violated (ran== -- a poster takes `away` for idle, which needs no ring
// mutant: LEFT_IDLE expects: assertion violated (ran== -- poll() leaves the loop idle though somebody waits for it
// mutant: LEFT_IN_SILENCE expects: assertion violated (ran== -- L2 finds something, and poll() returns without a ring
// mutant: REFUSED_IN_SILENCE expects: assertion violated (ran== -- L1 is refused by `wanted`, and poll() returns without a ring
// mutant: EXPOSED_UNRUNG expects: assertion violated (ran== -- backend_handle() does not ring for what came before
// mutant: RUNG_TO_AWAKE expects: assertion violated ((word -- who rings turns `away` to awake, as for a sleeper
// mutant: GIVEN_BACK_IDLE expects: assertion violated (ran== -- a borrower gives back as if nobody waited
// mutant: GIVEN_BACK_BLIND expects: assertion violated (ran== -- a borrower turns lent to away, `wanted` or not
// mutant: GIVEN_BACK_BY_STORE expects: assertion violated (ran== -- the same by a load and a store
// mutant: GIVEN_BACK_IN_SILENCE expects: assertion violated (ran== -- who could not give back to `away` does not ring
// mutant: WANTED_DROPPED expects: assertion violated (ran== -- a poster that finds lent goes on
// mutant: NOBODY_WOKEN expects: assertion violated (ran== -- a borrower does not wake who waits for it
// mutant: WANTED_KEPT expects: acceptance cycle -- a refused L1 leaves `wanted`, so poll() rings for itself for ever

#define IDLE 0
#define AWAKE 1
#define IN_POLLER 3
#define LENT 4
#define AWAY 6
#define WANTED 8
#define MODE(w) ((w) & 7)
#define WITH(w, m) (((w) & ~7) | (m))

#define NOBODY 0
#define FOREIGN 1
#define BORROWER 2
#ifdef LIVE
#define TASKS 1            // fewer states
#else
#define TASKS 2
#endif
#define NONE 7

byte word = IDLE;
bit symmetric, bell, on_word, exposed, asked, told;
byte tail, head, ran;
bit lap[TASKS + 1];
byte buffered[3] = NONE;   // the teller's stays empty: it only locks
byte owner = NOBODY;
byte scene;                // beside the posts: 0 nothing, 1 a borrower, 2 a wake()

inline drain(p) {
  d_step {
    if
    :: buffered[p] != NONE -> lap[buffered[p]] = true; buffered[p] = NONE
    :: else
    fi
  }
}
inline own(who) { assert(owner == NOBODY); owner = who }
inline disown(who) { assert(owner == who); owner = NOBODY }

inline wants_ring(w) {     // sets rings
#ifdef MUTANT_AWAY_UNRUNG
  rings = (MODE(w) == IN_POLLER)
#else
  rings = (MODE(w) == IN_POLLER || MODE(w) == AWAY)
#endif
}

// doorbell::move. [bell] B2, [sleep] P2.
inline move(p, bits) {
  atomic {
    drain(p);
    wants_ring(word);
    if
#ifdef MUTANT_RUNG_TO_AWAKE
    :: rings -> word = AWAKE
#else
    :: rings -> word = (MODE(word) == AWAY -> IDLE : AWAKE)     // up(): `wanted` goes with the sleep
#endif
#ifndef MUTANT_WANTED_DROPPED
    :: MODE(word) == LENT -> word = word | bits | WANTED
#endif
    :: else -> word = word | bits
    fi
  }
  if
  :: rings -> bell = true; rings = false                        // wake_poller()
  :: else
  fi
}

proctype poster(byte p) {
  byte seen, slot;
  bit rings;
  atomic { drain(p); slot = tail; tail++ }                      // ring::claim
  atomic {                                                      // [sleep] P1
    if
    :: symmetric -> lap[slot] = true
    :: else -> buffered[p] = slot
    fi;
    slot = 0
  }
  seen = word;                                                  // [sleep] P2
  if
  :: MODE(seen) != IDLE && MODE(seen) != AWAKE -> seen = 0; move(p, 0)
  :: else -> seen = 0
  fi
}

proctype teller() {
  bit rings;
  asked = true; move(2, WANTED); told = true
}

// When nothing moves any more.
#ifndef LIVE
active proctype quiet() {
  timeout -> assert(ran == TASKS); assert(!asked); assert(owner == NOBODY)
}
#endif

active proctype memory() {
end: do
  :: buffered[0] != NONE -> drain(0)
  :: buffered[1] != NONE -> drain(1)
  od
}

// ownership::give_back. `was`: the mode that was borrowed.
inline give_back(who) {
#ifdef MUTANT_GIVEN_BACK_IDLE
  was = IDLE;
#endif
  if
#ifdef MUTANT_GIVEN_BACK_BY_STORE
  :: was == AWAY && !(word & WANTED) -> word = AWAY; disown(who); goto given
#endif
  :: was == AWAY ->
    atomic {                                                    // give_back_away()
      if
#ifdef MUTANT_GIVEN_BACK_BLIND
      :: true -> word = WITH(word, AWAY); disown(who); goto given
#else
      :: !(word & WANTED) -> word = WITH(word, AWAY); disown(who); goto given
#endif
      :: else
      fi
    }
#ifndef MUTANT_GIVEN_BACK_IN_SILENCE
    bell = true                                                 // ring_own_bell()
#endif
  :: else
  fi;
  atomic { was = word; word = WITH(word, IDLE); disown(who) }   // give_back()
#ifndef MUTANT_NOBODY_WOKEN
  if
  :: was & WANTED -> on_word = false                            // wake_all
  :: else
  fi;
#endif
given: was = 0
}

proctype borrower() {
  byte was;
  atomic {                                                      // borrow()
    was = MODE(word);
    if
    :: was == IDLE || was == AWAY -> word = WITH(word, LENT); own(BORROWER)
    :: else -> goto over                                        // sends a command, as a post would
    fi
  }
  give_back(BORROWER);
over: skip
}

// await_give_back(), then the caller looks again.
inline await() {
  atomic {
    if
    :: MODE(word) == LENT -> word = word | WANTED; seen = word
    :: else -> goto again
    fi
  }
  atomic { on_word = (word == seen) }
  !on_word;
  goto again
}

active proctype foreign() {
  byte was, seen;
  bit news;
  atomic {
    if
    :: symmetric = 1
    :: symmetric = 0
    fi;
    if
    :: scene = 0
    :: scene = 1; run borrower()
    :: scene = 2; run teller()
    fi;
    run poster(0);
#ifndef LIVE
    run poster(1)
#endif
  }
borrow:                                                         // backend_handle(), next_timeout(): patient
  atomic {
    seen = 0;
    was = MODE(word);
    if
    :: was == IDLE || was == AWAY -> word = WITH(word, LENT); own(FOREIGN)
    :: else
    fi
  }
  if
  :: owner != FOREIGN -> await()
  :: else
  fi;
  atomic {
    assert(owner == FOREIGN);
    if
    :: !exposed ->
      exposed = true; was = IDLE;
#ifndef MUTANT_EXPOSED_UNRUNG
      bell = true
#endif
    :: else
    fi;
    news = lap[head]                                            // can_run(): it will not wait
  }
  give_back(FOREIGN);
  if
  :: news -> news = false; goto turn
  :: else
  fi;
end_waits:
  bell;
turn:                                                           // poll(): enter()
  atomic {
    seen = 0;
    if
    :: MODE(word) == IDLE || MODE(word) == AWAY -> word = WITH(word, AWAKE); own(FOREIGN); asked = false
    :: else -> assert(MODE(word) == LENT)
    fi
  }
  if
  :: owner != FOREIGN -> await()
  :: else
  fi;
  do
  :: lap[head] ->                                               // drain_ingress()
    assert(owner == FOREIGN); head++; ran++;
    if
    :: break                                                    // its share is over
    :: skip
    fi
  :: else -> break
  od;
  bell = false;                                                 // poll_without_sleeping()
  if                                                            // leave()
  :: lap[head] -> goto ring                                     // can_run()
  :: else
  fi;
  atomic {                                                      // publish()
    if
#ifdef MUTANT_WANTED_KEPT
    :: word & WANTED -> goto ring
#elif defined(MUTANT_REFUSED_IN_SILENCE)
    :: word & WANTED -> word = word & ~WANTED; goto leave
#else
    :: word & WANTED -> word = word & ~WANTED; goto ring
#endif
    :: else -> word = WITH(word, IN_POLLER)                     // [sleep] L1
    fi
  }
#ifndef MUTANT_NO_BARRIER
  if
  :: !symmetric -> drain(0); drain(1)                           // barrier()
  :: else
  fi;
#endif
#ifndef MUTANT_NO_RECHECK
  news = lap[head];                                             // [sleep] L2
#endif
  if
#ifdef MUTANT_LEFT_IN_SILENCE
  :: news -> goto leave
#else
  :: news -> goto ring
#endif
  :: else
  fi;
#ifdef MUTANT_HEARD_LATE
  bell = false;
#endif
  atomic {                                                      // leave_away()
    disown(FOREIGN);
    if
#ifndef MUTANT_LEFT_IDLE
    :: MODE(word) == IN_POLLER -> word = WITH(word, AWAY)
#endif
    :: else -> word = WITH(word, IDLE)                          // somebody has rung
    fi
  }
  goto next;
ring:
  bell = true;
leave:
  atomic { was = word; word = WITH(word, IDLE); disown(FOREIGN); was = 0 }
next:
  news = false;
  if
  :: goto borrow
  :: goto end_waits
  fi;
again:
  if
  :: !exposed || was != 0 -> goto borrow
  :: else -> goto turn
  fi
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
// At rest: nothing is rung for that was not given.
ltl live { <> [] (ran == TASKS && !asked && !bell && word == AWAY) }
#endif
