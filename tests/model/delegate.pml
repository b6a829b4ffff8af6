// delegate.pml - [front]: released permits are anybody's, and one of those who wait competes for them
//
// What stands for what
//   permits, waiting, delegate, closed   the fields of barging_account's word
//   queue, early  the queue, each call one step, as under a lock; telling comes after it
//   front, fate   as in permits<Queue, barging>
//   acquirer      acquire(n), inside, release(n)
//   leaver        a timer or cancel(), once
//   giver, closer a release() by a stranger; close()
//   gone          destroyed by the last that was told: asserted at each touch
//
// Scenes: two acquirers, one for two permits, strangers that release, and a leaver or close(); the same with one permit too
// few, so that only leaving ends the wait.
//
// LAST_DESTROYS is no slip that was made for the checker: it is the code as it is, and a scene in which the last that
// was told destroys the semaphore. F6 of a release() may come after its permit was taken, so it touches what may
// be gone. As long as that is so, barging semaphores may be destroyed only after every release() has returned.
//
// Store buffers need none: [front] is seq_cst, here as there, and the rest are read-modify-writes. A CAS loop is
// one step, the one that ends it. Left out: enter_at_once(), look_for() and forget(), which take permits that are there.
//
// mutant: NO_SECOND_LOOK expects: assertion violated (done== -- who stands in front does not look again
// mutant: FATE_UNSEEN expects: assertion violated (done== -- it looks for permits only, not whether it is to leave
// mutant: NO_CALL expects: acceptance cycle -- who gives does not call the front
// mutant: CLOSES_SILENTLY expects: assertion violated (done== -- close() does not call the front
// mutant: NO_NEXT expects: assertion violated ((delegate -- a delegate that takes does not name the next
// mutant: NOT_RESIGNED expects: assertion violated (((((waiting==0)&& !(delegate)) -- a delegate that leaves stays the delegate
// mutant: FRONT_LEFT expects: assertion violated (done== -- who has it leave does not look at the front
// mutant: TOLD_TWICE expects: assertion violated ( !((told -- the front is read and cleared in two steps
// mutant: LAST_DESTROYS expects: assertion violated  !(gone) -- who was told last destroys the semaphore: see above
// mutant: PROMISE_BROKEN expects: assertion violated (promised[me]== -- who was told to leave takes what is there
// mutant: RETURNED_DROPPED expects: assertion violated (permits==total) -- it takes, finds that it is to leave, and gives nothing back

#define GRANTED 0
#define CLOSED 1
#define LEFT 2
#define NOBODY 9
#define OPEN 0
#define OVER 1
#define GOES 2
#define SET(w) (1 << (w))

byte permits, waiting;
bit delegate, closed;
chan queue = [2] of { byte };
byte early, early_closed;
byte front = NOBODY;
byte fate[2], status[2], asked[2];
bit waits[2], joined[2], linked[2], promised[2], over[2];
byte total, told, inside, done, expected;
bit gone, destroys;

#define THERE assert(!gone)
// Permits enough for somebody in the queue: then there is a delegate.
#define IDLE(w) (waits[w] && permits >= asked[w])
#define NAMED assert(delegate || closed || !(IDLE(0) || IDLE(1)))
#define HAS(n) (permits >= n && !closed)

inline tell(w) { assert(!(told & SET(w)) && !over[w]); told = told | SET(w); waits[w] = false }

inline send(st) {                    // one token
  atomic {
    THERE;
    if
    :: queue?w; linked[w] = false; status[w] = st; tell(w); w = 0
    :: empty(queue) ->
      if
      :: st == GRANTED -> early++
      :: st == CLOSED -> early_closed++
      fi
    fi
  }
}

inline call_front() {
#ifdef MUTANT_TOLD_TWICE
  atomic { THERE; w = front };                            // [front] F6
  if
  :: w != NOBODY -> atomic { front = NOBODY; tell(w) }
  :: else
  fi;
  w = 0
#else
  atomic {
    THERE;
    if
    :: front != NOBODY -> w = front; front = NOBODY; tell(w); w = 0
    :: else
    fi
  }
#endif
}

inline resigned() {                  // somebody else is it, where there is something to take
  if
  :: permits > 0 && waiting > 0 && !closed -> waiting--; next = true
  :: else -> delegate = false
  fi
}

proctype giver(byte n) {
  byte w;
  bit calls, sends;
  atomic {
    THERE;
    sends = (!delegate && !closed && waiting > 0);
    calls = delegate;
    permits = permits + n;
    if
    :: sends -> delegate = true; waiting--
    :: else
    fi;
    NAMED
  }
  if
  :: sends -> send(GRANTED)
#ifndef MUTANT_NO_CALL
  :: calls -> call_front()
#endif
  :: else
  fi
}

proctype closer() {
  byte w, left;
  bit calls;
  atomic { left = waiting; calls = delegate; waiting = 0; closed = true; NAMED };
#ifndef MUTANT_CLOSES_SILENTLY
  if
  :: calls -> call_front()
  :: else
  fi;
#endif
  do
  :: left > 0 -> send(CLOSED); left--
  :: else -> break
  od
}

proctype leaver(byte v) {
  atomic {
    joined[v] || over[v];                                 // nobody knows it before
    if
    :: fate[v] == OPEN -> fate[v] = GOES; promised[v] = true      // [front] F5
    :: else -> goto end
    fi
  }
  atomic {                                                // the queue's leave, and the account's withdraw
    if
    :: linked[v] && waiting > 0 -> waiting--; queue??eval(v); linked[v] = false; status[v] = LEFT; tell(v); goto end
    :: else
    fi
  }
#ifndef MUTANT_FRONT_LEFT
  atomic {                                                // [front] F6
    if
    :: front == v -> front = NOBODY; tell(v)
    :: else
    fi
  };
#endif
end: skip
}

proctype acquirer(byte me; byte n) {
  byte w, got;
  bit next;
  atomic {                                                // enter
    if
    :: closed -> status[me] = CLOSED; fate[me] = OVER; goto end
    :: HAS(n) -> permits = permits - n; fate[me] = OVER; goto end
    :: else -> waiting++; asked[me] = n; fate[me] = OPEN; waits[me] = true; NAMED
    fi
  }
  atomic {                                                // join
    joined[me] = true;
    if
    :: early > 0 -> early--; tell(me)
    :: early == 0 && early_closed > 0 -> early_closed--; status[me] = CLOSED; tell(me)
    :: else -> queue!me; linked[me] = true
    fi
  }
wait:
  told & SET(me);                                         // redeem
  if
  :: fate[me] == OVER || status[me] != GRANTED -> goto conclude
  :: else
  fi;
  do
  :: atomic {                                             // compete
      got = (HAS(n) -> 1 : (closed -> 2 : 0));
      if
      :: got == 1 ->
        permits = permits - n;
#ifdef MUTANT_NO_NEXT
        delegate = false
#else
        resigned()
#endif
      :: got == 2 -> delegate = false
      :: else
      fi;
      NAMED
    };
    if
    :: next -> send(GRANTED); next = false
    :: else
    fi;
    if
    :: got == 1 -> goto conclude
    :: got == 2 -> status[me] = CLOSED; goto conclude
    :: else
    fi;
    if
    :: fate[me] != OPEN ->                                // [front] F8
#ifndef MUTANT_NOT_RESIGNED
      atomic { resigned(); NAMED };
      if
      :: next -> send(GRANTED); next = false
      :: else
      fi;
#endif
      goto conclude
    :: else
    fi;
    atomic { told = told & ~SET(me); front = me };        // again(); [front] F7
#ifdef MUTANT_NO_SECOND_LOOK
    goto wait;
#endif
    if
    :: HAS(n) || closed                                   // [front] F8: worth
#ifndef MUTANT_FATE_UNSEEN
    :: !(HAS(n) || closed) && fate[me] != OPEN            // [front] F8
    :: !(HAS(n) || closed) && fate[me] == OPEN -> goto wait
#else
    :: else -> goto wait
#endif
    fi;
    atomic {
      if
      :: front == me -> front = NOBODY                    // [front] F6
      :: else -> goto wait
      fi
    }
  od;
conclude:
  atomic {
    if
    :: fate[me] == OPEN -> fate[me] = OVER
    :: fate[me] == GOES ->
      status[me] = LEFT;
#ifdef MUTANT_PROMISE_BROKEN
      status[me] = (got == 1 -> GRANTED : LEFT)
#endif
    fi
  }
end:
  atomic {
    over[me] = true;
    assert(promised[me] == (status[me] == LEFT));         // who was promised hears so, and nobody else
    if
    :: status[me] == GRANTED -> inside = inside + n; assert(inside <= total); inside = inside - n
    :: else
    fi;
    if
#ifdef MUTANT_LAST_DESTROYS
    :: destroys -> gone = true
#endif
    :: !destroys && (status[me] == GRANTED || got == 1) ->
#ifdef MUTANT_RETURNED_DROPPED
      if
      :: status[me] == GRANTED -> run giver(n)
      :: else
      fi
#else
      run giver(n)                                        // released, or returned
#endif
    :: else
    fi;
    done++
  }
}

init {
  atomic {
    if
    :: expected = 2; total = 2; run acquirer(0, 2); run acquirer(1, 1); run giver(1); run giver(1); run leaver(0)
    :: expected = 2; total = 2; run acquirer(0, 1); run acquirer(1, 1); run giver(2); run leaver(1)
    :: expected = 2; total = 2; run acquirer(0, 1); run acquirer(1, 2); run giver(2); run closer()
    :: expected = 2; total = 1; run acquirer(0, 2); run acquirer(1, 1); run giver(1); run leaver(0)
    :: expected = 1; total = 1; run acquirer(0, 2); run giver(1); run closer()
#ifdef MUTANT_LAST_DESTROYS
    :: expected = 1; total = 2; destroys = true; run acquirer(0, 2); run giver(1); run giver(1)
#endif
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(done == expected);
#ifndef MUTANT_LAST_DESTROYS
  assert(permits == total);
  assert(waiting == 0 && !delegate && early == 0 && early_closed == 0 && front == NOBODY)
#endif
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
ltl live { <> (done > 0 && done == expected) }
#endif
