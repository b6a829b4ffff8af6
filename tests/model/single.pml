// single.pml - [single], [small]: one word for one waiter or one token, a lock and a list for more (phase 1)
//
// What stands for what
//   slot          nobody, many, early, or a waiter's name
//   lock, list, early   small_lock and waiter_list
//   thread        acquire(), or release(), or one after the other; leaves by itself when its time is up
//   word          permit_account
//   gone          the last that was told destroys all of it: asserted at each touch
//
// Scenes: two waits, two permits released by strangers, and destruction by the last that was told; the same, and one
// of the waiters leaves; one permit that goes round, and a waiter that comes again by the same name.
//
// Store buffers need none: while a thread has the lock the slot is `many`, which nobody else changes, so that the
// store that ends it is seen by the next CAS, and the step that gives the lock back drains it; all else are
// read-modify-writes. Left out: waits for several and close(), which take the lock and are account.pml's; how
// the lock sleeps.
//
// mutant: EARLY_BY_STORE expects: acceptance cycle -- a sender finds nobody and stores `early`, over a waiter
// mutant: JOINED_BY_STORE expects: assertion violated (done== -- a waiter finds nobody and stores its name, over a token
// mutant: NAMED_BY_STORE expects: assertion violated  !(told[out]) -- a sender finds a waiter and stores nobody
// mutant: SENDER_PUBLISHES expects: assertion violated  !(gone) -- a sender with nobody to tell says `early` before it gives back the lock
// mutant: TOLD_LOCKED expects: assertion violated  !(gone) -- told before the lock is given back
// mutant: LEFT_BY_CAS expects: assertion violated (destroys|| -- a waiter takes its name out, and asks the account then
// mutant: NOT_MOVED expects: assertion violated (done== -- who has the lock leaves the waiter in the slot
// mutant: UNLOCKED_TWICE expects: assertion violated lock -- the lock is given back twice
// mutant: MANY_UNLOCKED expects: assertion violated (slot==1) -- the lock is given back before the list is moved out
// mutant: MOVED_BEHIND expects: assertion violated  !((queued -- the waiter in the slot is put behind who comes

#define NOBODY 0
#define MANY 1
#define EARLY 2
#define NAME(w) (3 + (w))
#define JOIN 0
#define SEND 1
#define LEAVE 2
#define GRANTED 0
#define LEFT 2
#define NONE 9
#define THERE assert(!gone)
// Whoever is served has waited longest.
#define SERVED(w) assert(!(queued[1 - (w)] && ticket[1 - (w)] < ticket[w])); queued[w] = false

short word;
byte slot, early, tickets;
bit lock, gone, destroys;
chan list = [2] of { byte };
byte ticket[2], status[2];
bit queued[2], told[2];
byte done, expected = 2, total = 2, released;

proctype thread(byte role; byte v; byte rounds; bit leaves) {
  byte seen, w, out = NONE;
  bit keeps, joins;
again:
  if
  :: role == JOIN ->
    atomic { told[v] = false; word--; status[v] = GRANTED; seen = (word >= 0) };
    if
    :: seen -> seen = 0; goto has
    :: else
    fi;
#ifdef MUTANT_JOINED_BY_STORE
    seen = slot;
    if
    :: atomic { seen == NOBODY -> slot = NAME(v); ticket[v] = tickets; tickets++; queued[v] = true; seen = 0; goto wait }
    :: else
    fi;
#else
    atomic {                                              // [single] S1
      THERE; seen = slot;
      if
      :: slot == NOBODY -> slot = NAME(v); ticket[v] = tickets; tickets++; queued[v] = true; seen = 0; goto wait
      :: else
      fi
    };
#endif
    if
    :: seen == EARLY ->
      atomic {                                            // [single] S2
        THERE;
        if
        :: slot == EARLY -> slot = NOBODY; seen = 0; told[v] = true; goto wait
        :: else
        fi
      }
    :: else
    fi
  :: role == SEND ->
    atomic { THERE; seen = (word < 0); word++ };
    if
    :: !seen -> goto given
    :: else
    fi;
    atomic { THERE; seen = slot };
    if
    :: seen != MANY && seen != EARLY ->
      atomic {                                            // [single] S2, S1
        THERE;
        if
#if defined(MUTANT_EARLY_BY_STORE)
        :: slot == seen || seen == NOBODY ->
#elif defined(MUTANT_NAMED_BY_STORE)
        :: slot == seen || seen >= NAME(0) ->
#else
        :: slot == seen ->
#endif
          slot = (seen == NOBODY -> EARLY : NOBODY);
          out = (seen >= NAME(0) -> seen - NAME(0) : NONE);
          seen = 0;
          if
          :: out != NONE -> SERVED(out)
          :: else
          fi;
          goto tell
        :: else
        fi
      }
    :: else
    fi
  :: role == LEAVE ->
#ifdef MUTANT_LEFT_BY_CAS
    atomic {
      if
      :: slot == NAME(v) -> slot = NOBODY; queued[v] = false; seen = 1
      :: else -> seen = 0
      fi
    };
    atomic {
      if
      :: seen -> word = (word < 0 -> word + 1 : word); status[v] = LEFT; out = v; seen = 0; goto tell
      :: else
      fi
    }
#else
    skip
#endif
  fi;
  atomic { THERE; !lock -> lock = true };                 // [small] L9
  atomic {                                                // move_into_list
    THERE;
    seen = slot;
#ifdef MUTANT_NOT_MOVED
    if
    :: slot < NAME(0) -> slot = MANY
    :: else -> seen = MANY
    fi;
#else
    slot = MANY;
#endif
    if
    :: seen == EARLY -> early++
#ifdef MUTANT_MOVED_BEHIND
    :: seen >= NAME(0) && role == JOIN && early == 0 -> list!v; list!(seen - NAME(0));
      ticket[v] = tickets; tickets++; queued[v] = true; seen = 0; goto moved
#endif
    :: seen >= NAME(0) -> list!(seen - NAME(0))
    :: else
    fi;
    seen = 0
  };
  atomic {
    THERE;
    if
    :: role == JOIN ->
      if
      :: early > 0 -> early--; out = v
      :: else -> list!v; ticket[v] = tickets; tickets++; queued[v] = true
      fi
    :: role == SEND ->
      if
      :: nempty(list) -> list?out; SERVED(out)
      :: else -> early++; keeps = true
      fi
    :: role == LEAVE ->
      if
      :: queued[v] && word < 0 -> word++; list??eval(v); queued[v] = false; status[v] = LEFT; out = v
      :: else
      fi
    fi
  };
#ifdef MUTANT_MOVED_BEHIND
moved:
#endif
#ifdef MUTANT_SENDER_PUBLISHES
  keeps = false;
#endif
#ifdef MUTANT_TOLD_LOCKED
  atomic {
    if
    :: out != NONE -> told[out] = true; out = NONE
    :: else
    fi
  };
#endif
#ifdef MUTANT_MANY_UNLOCKED
  atomic { THERE; lock = false };
#endif
  atomic {                                                // move_out_of_list
    THERE;
    if
    :: keeps -> keeps = false
    :: else ->
      assert(slot == MANY);
      if
      :: empty(list) && early == 0 -> slot = NOBODY
      :: empty(list) && early == 1 -> early = 0; slot = EARLY
      :: len(list) == 1 -> list?w; slot = NAME(w); w = 0
      :: else
      fi
    fi
  };
#ifndef MUTANT_MANY_UNLOCKED
  atomic { THERE; assert(lock); lock = false };           // [small] L8
#endif
#ifdef MUTANT_UNLOCKED_TWICE
  atomic { THERE; lock = false };
#endif
tell:
  atomic {
    if
    :: out != NONE -> assert(!told[out]); told[out] = true; out = NONE
    :: else
    fi
  };
  if
  :: role == SEND -> goto given
  :: else
  fi;
wait:
  if
  :: told[v]
  :: leaves -> leaves = false; role = LEAVE; goto again   // its time is up
  fi;
has:
  atomic {
    assert(!queued[v]);
    if
    :: destroys -> done++
    :: !destroys && status[v] == GRANTED && rounds > 0 -> rounds--; role = SEND; joins = (rounds > 0); goto again
    :: !destroys && status[v] == GRANTED && rounds == 0 -> done++; released++
    :: !destroys && status[v] == LEFT -> done++
    fi;
    gone = (destroys && done == expected);
    goto end
  };
given:
  if
  :: joins -> joins = false; rounds--; role = JOIN; goto again
  :: else -> done = done + (v < 2)
  fi;
end: skip
}

init {
  atomic {
    if
#ifndef LIVE
    :: destroys = true; run thread(JOIN, 0, 0, 0); run thread(JOIN, 1, 0, 0); run thread(SEND, 2, 0, 0); run thread(SEND, 2, 0, 0)
#endif
    :: run thread(JOIN, 0, 0, 1); run thread(JOIN, 1, 0, 0); run thread(SEND, 2, 0, 0); run thread(SEND, 2, 0, 0)
    :: total = 1; run thread(JOIN, 0, 3, 0); run thread(JOIN, 1, 1, 0); run thread(SEND, 2, 0, 0)
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(done == expected);
  assert(destroys || word + released == total);
  assert(slot == NOBODY || destroys)
#endif
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> (done == expected) }
#endif
