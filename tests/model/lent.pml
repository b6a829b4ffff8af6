// lent.pml - [lend], [keep]: callers are the loop while the loop thread sleeps in the channel
//
// What stands for what
//   loop          park() with wakeup::offer, sleep(), reclaim(), await_give_back()
//   caller(c)     basic_loop::invoke: loan, serve, f, may_sleep_on, end(); or post and wait (ask)
//   poster        a post under the asymmetric fence: P1 plain, P2 a load
//   teller        stop()
//   buffered      the poster's store buffer, one lap
//   on_word[s]    who sleeps on the status word: 0 the loop thread, 1 a borrower that runs the loop inside
//                 f and keeps it. wake_one wakes any one of them
//   owner         who may touch the loop's private state (head, deferred): asserted at each touch
//   due           the deadline that the sleeper took is over: the loop thread must get up for it
//
// What f does is one of: nothing, defer a task (which stands for all that
// forbids to sleep on: microtasks, an earlier deadline, a watch, an exception), run the loop until the poster's
// task ran. The scenes bound what happens at once.
//
// Store buffers matter for the poster alone: it must not need a barrier from a loan. Callers post strong,
// and every other step here is a CAS. Weaker CPUs: the private state travels by release and acquire of the
// word, whose changes are read-modify-writes, so by one release sequence; and by `kept`.
//
// Left out: fork, which nested run a loan belongs to, the fence's choice (sleep.pml), borrowing an idle loop.
//
// mutant: WANTED_DROPPED expects: assertion violated (ran== -- a poster that finds lent goes on
// mutant: BLIND_GIVE_BACK expects: assertion violated ( !(due) -- given back without a look for a reason to be up
// mutant: GIVE_BACK_BY_STORE expects: assertion violated -- E2 a store, which erases `wanted`
// mutant: TAKEN_BACK expects: assertion violated (owner==0) -- a loop thread that wakes takes its loop, lent or not
// mutant: NOBODY_ASKED expects: assertion violated ( !(due) -- it waits for the borrower and does not set `wanted`
// mutant: KEPT_LATE expects: assertion violated (owner==0) -- V1 behind its CAS
// mutant: KEPT_IGNORED expects: assertion violated (owner==0) -- V2 does not look at `kept`
// mutant: WAKE_SWALLOWED expects: assertion violated -- V2 does not pass the wake on
// mutant: NOT_ROUSED expects: assertion violated ( !(due) -- V3 does not wake the loop thread on the word
// mutant: GIVEN_UP_ASLEEP expects: acceptance cycle -- who could not give back asleep leaves the loop thread asleep
// mutant: BORROWED_BY_STORE expects: assertion violated (owner==0) -- E1 a load and a store
// mutant: OFFERED_UNSEEN expects: assertion violated (ran== -- offered without L2

#define IDLE 0
#define AWAKE 1
#define IN_CHANNEL 2
#define LENT 4
#define WANTED 8
#define STOP 16
#define LENDABLE 64
#define OFFERED (IN_CHANNEL | LENDABLE)
#define BORROWED (LENT | LENDABLE)
#define MODE(w) ((w) & 7)
#define WITH(w, m) (((w) & ~7) | (m))
#define UP(w) WITH((w) & ~(WANTED | LENDABLE), AWAKE)

#define NOBODY 0
#define LOOP 1
#define NONE 7
#define POSTS 3                      // places; the poster's and those of callers that ask

byte word = AWAKE, kept;
bit on_word[2], on_kept;
byte tail, task[POSTS + 1] = NONE;   // whose: 0, 1 a caller's f, 2 the poster's
bit lap[POSTS + 1];
byte buffered = NONE;
byte owner = LOOP, head, ran;        // ran: a set of 0, 1, 2
bit deferred, due, told, returned;
byte scene;
byte callers_done;

inline drain() {
  d_step {
    if
    :: buffered != NONE -> lap[buffered] = true; buffered = NONE
    :: else
    fi
  }
}
inline own(who) { assert(owner == NOBODY); owner = who }
inline disown(who) { assert(owner == who); owner = NOBODY }

inline wake_one() {                  // of the word's sleepers
  atomic {
    if
    :: on_word[0] -> on_word[0] = false
    :: on_word[1] -> on_word[1] = false
    :: !on_word[0] && !on_word[1]
    fi
  }
}

// doorbell::move; the winner wakes. Sets won.
inline move(bits) {
  atomic {
    drain();
    won = (MODE(word) == IN_CHANNEL);
    if
    :: won -> word = UP(word) | bits
#ifndef MUTANT_WANTED_DROPPED
    :: MODE(word) == LENT -> word = word | bits | WANTED
#endif
    :: else -> word = word | bits
    fi
  }
  if
  :: won -> wake_one()               // rouse()
  :: else
  fi
}

inline execute(me) {                 // the task at head
  atomic {
    assert(owner == me && !(ran & (1 << task[head])));
    ran = ran | (1 << task[head]); head++
  }
}

proctype poster() {
  byte slot;
  bit won;
  atomic { slot = tail; tail++; task[slot] = 2; buffered = slot; slot = 0 }  // claim; P1, a plain store
  if
  :: word == AWAKE || word == (AWAKE | WANTED) || word == (AWAKE | STOP) || MODE(word) == IDLE
  :: word == (BORROWED | WANTED) || word == (BORROWED | WANTED | STOP)       // P2: goes on, no locked step
  :: MODE(word) == IN_CHANNEL || word == BORROWED || word == (BORROWED | STOP) -> move(0)
  fi
}

proctype teller() {
  bit won;
#ifndef LIVE
  if
  :: scene == 2                      // an early stop
  :: else -> timeout ->              // nothing moves any more
    assert(!due && !deferred);
    assert(ran == (scene == 1 -> 5 : 7))
  fi;
#endif
  move(STOP); told = true
}

active proctype memory() {
end: do
  :: buffered != NONE -> drain()
  od
}

inline look_and_sleep(me, s) {       // a borrower's park inside f: never offered
  atomic {
    if
    :: word & (WANTED | STOP) -> word = word & ~WANTED
    :: else -> word = WITH(word, IN_CHANNEL)               // [sleep] L1
    fi
  }
  if
  :: MODE(word) == IN_CHANNEL ->
    drain();                                               // barrier()
    if
    :: lap[head]                                           // [sleep] L2
    :: else -> atomic { on_word[s] = (word == IN_CHANNEL) }; !on_word[s]
    fi;
    atomic {                                               // wake_self()
      if
      :: MODE(word) == IN_CHANNEL -> word = UP(word)
      :: else
      fi
    }
  :: else
  fi
}

proctype caller(byte c) {
  byte owed, slot;
  bit borrowed, served, won, keeps, up;
#ifdef MUTANT_BORROWED_BY_STORE
  if
  :: word == OFFERED -> word = BORROWED; own(c + 2); borrowed = true
  :: else
  fi;
#else
  atomic {                                                 // borrow_sleeper(): [lend] E1
    if
    :: word == OFFERED -> word = BORROWED; own(c + 2); borrowed = true
    :: else
    fi
  }
#endif
  if
  :: borrowed ->
    atomic { assert(owner == c + 2); owed = tail - head; served = true };   // serve(), owe_pending()
    do
    :: owed == 0 || !served -> break
    :: else ->
      if
      :: (word & STOP) || !lap[head] -> served = false
      :: else -> execute(c + 2); owed--
      fi
    od;
    owed = 0
  :: else
  fi;
  if
  :: served ->                                             // f
    atomic { assert(owner == c + 2 && !(ran & (1 << c))); ran = ran | (1 << c) };
    if
    :: deferred = true; up = true      
    :: skip
    :: scene == 1 && !(ran & 4) ->                         // run() inside f: keep_loan()
      if
      :: deferred = true
      :: skip
      fi;
      keeps = true;
#ifndef MUTANT_KEPT_LATE
      kept = 1;                                            // [keep] V1
#endif
      atomic { word = WITH(word & ~LENDABLE, AWAKE) };     // [keep] V1
#ifdef MUTANT_KEPT_LATE
      kept = 1;
#endif
      do
      :: (ran & 4) || (word & STOP) -> break
      :: else ->
        if
        :: lap[head] -> execute(c + 2)
        :: else -> look_and_sleep(c + 2, 1)
        fi
      od
    fi
  :: !served ->                                            // ask(): behind what is queued
    atomic { slot = tail; tail++; task[slot] = c };
    lap[slot] = true; slot = 0;
    if
    :: MODE(word) == AWAKE || MODE(word) == IDLE
    :: MODE(word) != AWAKE && MODE(word) != IDLE -> move(0)
    fi
  fi;
  if                                                       // loan::end()
  :: !borrowed
  :: borrowed && keeps ->
    disown(c + 2);
    kept = 0;                                              // [keep] V3
    on_kept = false;
#ifndef MUTANT_NOT_ROUSED
    wake_one()
#endif
  :: borrowed && !keeps ->
    up = up || !served;                                    // may_sleep_on()
#ifdef MUTANT_BLIND_GIVE_BACK
    up = false;
#endif
    atomic {
#ifdef MUTANT_GIVE_BACK_BY_STORE
      if
      :: !up -> word = OFFERED; disown(c + 2)
#else
      if
      :: !up && word == BORROWED -> word = OFFERED; disown(c + 2)   // [lend] E2
#endif
      :: else -> up = true
      fi
    };
    if
    :: up ->                                               // give_back_awake()
      atomic { word = UP(word); disown(c + 2) };
#ifndef MUTANT_GIVEN_UP_ASLEEP
      wake_one()                                           // door.rouse()
#endif
    :: else
    fi
  fi;
end: (ran & (1 << c));                                     // awaited::wait(); a stopped loop answers later
  callers_done++
}

active proctype loop() {
  byte seen, asleep;
  bit spurious;
  atomic {
    if                               // who is there
    :: scene = 1; spurious = 1; run caller(0)                    // one that keeps, a poster, a deadline
    :: scene = 2; run caller(0)                                  // a caller, a poster, an early stop
#ifdef LIVE
    :: scene = 0; spurious = 1; run caller(0)                    // one, a poster, a deadline: fewer states
#else
    :: scene = 0; spurious = 1; run caller(0); run caller(1)     // two callers, a poster, a deadline
#endif
    fi;
    run poster(); run teller()
  }
turn:
  atomic { assert(owner == LOOP); deferred = false; due = false };
  do
  :: lap[head] -> execute(LOOP)
  :: else -> break
  od;
  if
  :: word & STOP -> goto leave
  :: else
  fi;
  atomic {                                                 // publish: [sleep] L1
    if
    :: word & (WANTED | STOP) -> word = word & ~WANTED; goto turn
    :: else -> word = IN_CHANNEL
    fi
  }
#ifndef MUTANT_OFFERED_UNSEEN
  drain();                                                 // barrier()
  if
  :: lap[head] -> goto up                                  // [sleep] L2
  :: else
  fi;
#endif
  atomic {                                                 // offer(): [lend] E0
    if
    :: word == IN_CHANNEL -> word = OFFERED; asleep = OFFERED; disown(LOOP)
    :: else -> asleep = IN_CHANNEL
    fi
  }
  atomic { on_word[0] = (word == asleep) };                // sleep(): the channel, until a deadline
  if
  :: !on_word[0]
  :: atomic { on_word[0] && spurious -> spurious = false; on_word[0] = false; due = true }
  fi;
  if
  :: asleep == IN_CHANNEL -> goto up
  :: else
  fi;
  do                                                       // reclaim()
  :: seen = word;
    if
    :: seen == OFFERED ->
      atomic {
        if
        :: word == OFFERED -> word = AWAKE; own(LOOP); break
        :: else
        fi
      }
    :: seen != OFFERED && (seen & LENDABLE) ->
#ifdef MUTANT_TAKEN_BACK
      atomic { word = UP(word); own(LOOP) }; break
#elif defined(MUTANT_NOBODY_ASKED)
      atomic { on_word[0] = (word == seen) }; !on_word[0]
#else
      atomic {                                             // await_give_back()
        if
        :: word == seen -> word = seen | WANTED; seen = seen | WANTED
        :: else -> goto again
        fi
      }
      atomic { on_word[0] = (word == seen) }; !on_word[0]
#endif
    :: !(seen & LENDABLE) ->
#ifndef MUTANT_KEPT_IGNORED
      if
      :: kept == 0 ->                                      // [keep] V2, V4
#endif
        own(LOOP); break
#ifndef MUTANT_KEPT_IGNORED
      :: else ->
#ifndef MUTANT_WAKE_SWALLOWED
        wake_one();                                        // meant for the one who is the loop
#endif
        atomic { on_kept = (kept == 1) }; !on_kept
      fi
#endif
    fi;
again: seen = 0
  od;
  seen = 0;
up:
  atomic {                                                 // wake_self()
    asleep = 0;
    if
    :: MODE(word) == IN_CHANNEL -> word = UP(word)
    :: else
    fi
  }
  goto turn;
leave:
  disown(LOOP);
  word = IDLE;
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
ltl live { <> returned }
#endif
