// refs.pml - [ref]: who gives up in the last moment, and the last that was told, who destroys what both waited for
//
// What stands for what
//   word          the hasty one's own word
//   count         wait_refs
//   owed, linked  notice_account, and a queue that is one step
//   gone          the last has destroyed it all: asserted at each touch
//
// The hasty one gives up at any time, or never. A teller tells all that are in the account: the hasty one
// first, if it is, and then the last.
//
// Store buffers need none: all that is shared is changed by read-modify-writes, and what is told lies behind them.
//
// mutant: NOT_WAITED expects: assertion violated  !(gone) -- the destructor does not wait
// mutant: TOLD_UNSEEN expects: assertion violated  !(gone) -- who was told leaves all the same
// mutant: LEAVER_UNCOUNTED expects: assertion violated  !(gone) -- who leaves does not count itself
// mutant: LEAVER_UNKEPT expects: assertion violated  !(gone) -- who tells one that leaves does not count it
// mutant: KEPT_FOR_EVER expects: assertion violated (done== -- who tells one that had left counts it all the same
// mutant: DROPPED_ONCE expects: assertion violated (done== -- who was told while it left counts one off

#define WAITS 0
#define LEAVING 1
#define TOLD 2
#define THERE assert(!gone)

byte word, owed = 2, done;
short count;
bit linked = true, gone, told_last;

inline tell_hasty() {
  if
  :: atomic { word == WAITS -> word = TOLD }              // R5
  :: atomic { word == LEAVING ->                          // R6
#ifndef MUTANT_LEAVER_UNKEPT
      THERE; count++
#endif
    };
    atomic { seen = word; word = TOLD };                  // R7
#ifndef MUTANT_LEAVER_UNKEPT
    if
    :: seen == LEAVING
    :: seen == WAITS ->
#ifndef MUTANT_KEPT_FOR_EVER
      atomic { THERE; count-- }
#else
      skip
#endif
    fi
#endif
  fi
}

proctype hasty() {
  byte seen;
  bit left;
  if
  :: atomic { word == TOLD -> goto over }
  :: skip                                                 // its deadline comes
  fi;
#ifdef MUTANT_TOLD_UNSEEN
  atomic { word = (word == WAITS -> LEAVING : word) };
#else
  if
  :: atomic { word == WAITS -> word = LEAVING }           // R1
  :: atomic { word == TOLD -> goto over }
  fi;
#endif
#ifndef MUTANT_LEAVER_UNCOUNTED
  atomic { THERE; count++ };                              // R2
#endif
  atomic {                                                // R3
    THERE;
    if
    :: linked && owed > 0 -> owed--; linked = false; left = true
    :: else
    fi
  };
  if
  :: left -> tell_hasty()
  :: else
  fi;
#ifdef MUTANT_LEAVER_UNCOUNTED
  atomic { seen = (word == TOLD); word = (word == LEAVING -> WAITS : word) };
#else
  atomic { seen = 1 + (word == TOLD); word = (word == LEAVING -> WAITS : word) };
#endif
#ifdef MUTANT_LEAVER_UNKEPT
  seen = 1;
#endif
#ifdef MUTANT_DROPPED_ONCE
  seen = 1;
#endif
  if
  :: seen > 0 -> atomic { THERE; count = count - seen }   // R4
  :: else
  fi;
  word == TOLD;
over:
  done++
}

proctype teller() {
  byte n, seen;
  bit to_hasty;
  atomic { THERE; n = owed; owed = 0 };
  atomic {
    THERE;
    if
    :: linked -> linked = false; to_hasty = true
    :: else
    fi
  };
  if
  :: to_hasty -> tell_hasty()
  :: else
  fi;
  told_last = true;
  done++
}

proctype last() {
  told_last;
#ifndef MUTANT_NOT_WAITED
  count == 0;                                             // R8
#endif
  gone = true;
  done++
}

init {
  atomic { run hasty(); run teller(); run last() }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(done == 3)
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
ltl live { <> (done == 3) }
#endif
