// hand.pml - [hand]: threads that are the loop one after the other, and what one leaves to the next
//
// What stands for what
//   runner        run(): wakeup::enter, publish, wake_self, leave; twice, and whether somebody is in its way
//   patient       backend_handle(), on_prepare(): ownership::patient, borrow_in_turn, give_back
//   hasty         watch(): ownership, borrow; a loop that is lent or runs gets a command instead
//   teller        doorbell::tell, or a post that finds the loop lent: sets a bit
//   destroyer     tear_down(): borrow until it succeeds, bury
//   word          doorbell::word, a mode and `wanted`; every change is one atomic step
//   on_word       futex waiters; a wait sleeps only if the word still holds what was expected
//   owner         who may touch the loop's private state: asserted at each touch
//
// What C++ says of the private state is modelled, not the buffers of some CPU: `version` counts its changes,
// knows[t] is how many of them happen before what t does next, and `carried` what an acquire of the word
// learns. N1, a release, adds what its thread knows; N2, an acquire, takes it; each other read-modify-write
// of the word continues the release sequence and leaves it; a plain store would begin anew.
//
// Left out: why borrowers borrow, `away` (away.pml), a sleeper that lends (lent.pml), companion and ringers.
//
// mutant: RELAXED_LEAVE expects: assertion violated (knows -- N1 is no release
// mutant: RELAXED_ENTER expects: assertion violated (knows -- N2 is no acquire
// mutant: ENTER_BY_STORE expects: assertion violated (owner== -- N2 a load and a store
// mutant: GIVEN_BACK_BY_STORE expects: invalid end state -- N1 a load and a store, which erases `wanted`
// mutant: STORE_IN_BETWEEN expects: assertion violated (knows -- who tells writes the word without a read-modify-write
// mutant: ENTERS_WHILE_LENT expects: assertion violated (owner== -- run() takes a loop that is lent
// mutant: SLEEPS_UNASKED expects: invalid end state -- who waits for a borrower does not set `wanted`
// mutant: SLEEPS_ON_OLD expects: invalid end state -- who waits sleeps on what it read before it set `wanted`, looked at or not
// mutant: NOBODY_WOKEN expects: acceptance cycle -- who gives back wakes nobody
// mutant: ONE_WOKEN expects: invalid end state -- of several that wait one is woken

#define IDLE 0
#define AWAKE 1
#define IN_CHANNEL 2
#define LENT 4
#define DEAD 5
#define WANTED 8
#define MODE(w) ((w) & 7)
#define WITH(w, m) (((w) & ~7) | (m))

#define NOBODY 7
#define RUNNER 0
#define PATIENT 1                     // and 2
#define HASTY 3
#define DESTROYER 4

byte word = IDLE;
bit on_word[5];
byte owner = NOBODY;
byte version, carried, knows[5];
byte over;

#define MAX(a, b) ((a) > (b) -> (a) : (b))

inline touch(t) {                     // reads and changes what belongs to the loop
  atomic {
    assert(owner == t);
    assert(knows[t] == version);
    if
    :: version < 5 -> version++       // enough to be behind
    :: else
    fi;
    knows[t] = version
  }
}
inline acquire(t) {
#ifdef MUTANT_RELAXED_ENTER
  skip
#else
  knows[t] = MAX(knows[t], carried)
#endif
}
inline release(t) {
#ifdef MUTANT_RELAXED_LEAVE
  skip
#else
  carried = MAX(carried, knows[t])
#endif
}
inline own(t) { assert(owner == NOBODY); owner = t }

// The word's sleepers, after give_back().
inline wake_all() {
  atomic {
#ifdef MUTANT_NOBODY_WOKEN
    skip
#elif defined(MUTANT_ONE_WOKEN)
    if
    :: on_word[1] -> on_word[1] = false
    :: !on_word[1] && on_word[2] -> on_word[2] = false
    :: !on_word[1] && !on_word[2] -> on_word[0] = false
    fi
#else
    on_word[0] = false; on_word[1] = false; on_word[2] = false
#endif
  }
}

// await_give_back(). Its caller looks again.
inline await(t) {
  atomic {
    if
#ifdef MUTANT_SLEEPS_UNASKED
    :: MODE(word) == LENT -> seen = word
#else
    :: MODE(word) == LENT -> word = word | WANTED; seen = word
#endif
    :: else -> goto again
    fi
  }
#ifdef MUTANT_SLEEPS_ON_OLD
  on_word[t] = true;
#else
  atomic { on_word[t] = (word == seen) }
#endif
  !on_word[t];
again: seen = 0
}

// borrow(): [hand] N2. Sets got.
inline borrow(t) {
#ifdef MUTANT_ENTER_BY_STORE
  seen = word;
  if
  :: MODE(seen) == IDLE -> word = WITH(seen, LENT); acquire(t); own(t); got = true
  :: else
  fi;
  seen = 0
#else
  atomic {
    if
    :: MODE(word) == IDLE -> word = WITH(word, LENT); acquire(t); own(t); got = true
    :: else
    fi
  }
#endif
}
// give_back(): [hand] N1, then who waits.
inline give_back(t) {
#ifdef MUTANT_GIVEN_BACK_BY_STORE
  seen = word;
  atomic { assert(owner == t); owner = NOBODY; carried = knows[t]; word = WITH(seen, IDLE); over++ }
#else
  atomic { assert(owner == t); owner = NOBODY; release(t); seen = word; word = WITH(word, IDLE); over++ }
#endif
  if
  :: seen & WANTED -> wake_all()
  :: else
  fi;
  seen = 0; got = false
}

proctype patient(byte t) {
  byte seen;
  bit got;
  do                                  // borrow_in_turn()
  :: borrow(t);
    if
    :: got -> touch(t); give_back(t); break
    :: !got && MODE(word) == LENT -> await(t)
    :: !got && MODE(word) == IDLE     // given back meanwhile
    :: !got && MODE(word) != LENT && MODE(word) != IDLE -> over++; break   // wrong_thread
    fi
  od
}

proctype hasty() {
  byte seen;
  bit got;
  borrow(HASTY);
  if
  :: got -> touch(HASTY); give_back(HASTY)
  :: else -> over++
  fi
}

active proctype teller() {
#ifdef MUTANT_STORE_IN_BETWEEN
  atomic { word = word | WANTED; carried = 0 }
#else
  atomic { word = word | WANTED }     // any bit: a read-modify-write
#endif
}

active proctype runner() {
  byte seen, runs;
  bit got;
  atomic { run patient(1); run patient(2); run hasty() }
  do
  :: runs == 2 -> break
  :: else ->
    do                                // enter()
    ::
#ifdef MUTANT_ENTERS_WHILE_LENT
      atomic { word = WITH(word, AWAKE); acquire(RUNNER); own(RUNNER) }; break
#else
      atomic {
        if
        :: MODE(word) == IDLE -> word = WITH(word, AWAKE); acquire(RUNNER); own(RUNNER); got = true
        :: else
        fi
      }
      if
      :: got -> break
      :: else -> await(RUNNER)
      fi
#endif
    od;
    got = false;
    touch(RUNNER);
    atomic {                          // publish(), a sleep, wake_self()
      if
      :: word & WANTED -> word = word & ~WANTED
      :: else -> word = WITH(word, IN_CHANNEL)
      fi
    }
    atomic { word = WITH(word & ~WANTED, AWAKE) }
    touch(RUNNER);
    atomic { assert(owner == RUNNER); owner = NOBODY; release(RUNNER); word = WITH(word, IDLE) }  // leave(): N1
    runs++
  od;
  over == 3;                          // a destructor comes when nobody is in the loop any more: who has
                                      // given it back may still be about to wake others
  do                                  // tear_down()
  :: atomic { MODE(word) == IDLE -> word = WITH(word, LENT); acquire(DESTROYER); own(DESTROYER); break }
  od;
  atomic { word = WITH(word, DEAD); touch(DESTROYER) }            // bury(), destroy_all_work()
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> (word == DEAD || word == (DEAD | WANTED)) }
#endif
