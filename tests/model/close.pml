// close.pml - [close]: what ring and spill accepted before the loop closed is run, and nothing else
//
// What stands for what
//   poster        queue::offer: ring::claim, queue::fill, queue::offer_spill
//   closer        entrance::close, ingress::close, queue::close
//   loop          runner::run, finished, heed_close, drained, drain; then queue::destroy_all of
//                 core::tear_down, which is the same with destroying for running
//   tail, chain   ring::tail_ with its closed bit, spill::head_ with its tag
//
// A ring of one slot, so that one of three posters spills at least. A post that was accepted is run when
// the loop has returned; one that was refused is not. Where the loop sleeps it waits for a change of what
// L2 looks at, which sleep.pml shows to be right.
//
// No store buffers: C1, the claims and the pushes are locked, so they are in one order; laps and ready
// flags that are late are slow posters. C4 is a seq_cst load behind the acquire C3 of the bit that C2 set
// after C1. Left out: lanes (lanes.pml), tickets (spill.pml), waiting for room (room.pml), deferred
// tasks, timers and watches, which belong to the loop thread.
//
// mutant: CLOSED_BY_STATUS expects: assertion violated (ran==accepted) -- posters look for the closed bit in the status word
// mutant: STATUS_FIRST expects: assertion violated (ran==accepted) -- C2 before C1
// mutant: TAIL_BY_STORE expects: assertion violated (ran==accepted) -- C1 a load and a store, which undoes a claim
// mutant: SPILL_OPEN expects: assertion violated (ran==accepted) -- the spill's head is not closed
// mutant: TAKE_OPENS expects: assertion violated (ran==accepted) -- K3 an exchange(0), which erases the closed tag
// mutant: EMPTY_IF_UNPUBLISHED expects: assertion violated (ran==accepted) -- a claim that is not yet published is no work
// mutant: SPILL_FORGOTTEN expects: assertion violated (ran==accepted) -- drained() looks at the ring only
// mutant: CLOSE_WITHOUT_WAKE expects: acceptance cycle -- C2 does not ring

#define POSTERS 3
#define NONE 7
#define CLOSED 128
#define AWAKE 1
#define ASLEEP 2
#define CLOSE 32

byte word = AWAKE;
byte tail, head_out, lap, task;
byte chain = NONE;           // the head of the chain, maybe | CLOSED
byte next[POSTERS] = NONE;
bit ready[POSTERS];
byte accepted, refused, ran; // sets of posts
bit returned;

proctype poster(byte me) {
  byte t, h, c;
#ifdef MUTANT_CLOSED_BY_STATUS
  if
  :: word & CLOSE -> refused = refused | (1 << me); goto done
  :: else
  fi;
#define IS_CLOSED(x) false
#else
#define IS_CLOSED(x) ((x) & CLOSED)
#endif
  c = chain;
  if                                               // queue::claim
  :: (c & ~CLOSED) != NONE ->
    if
    :: IS_CLOSED(tail) -> refused = refused | (1 << me); goto done
    :: else -> goto spilled
    fi
  :: else
  fi;
  t = tail;                                        // ring::claim
again:
  if
  :: IS_CLOSED(t) -> refused = refused | (1 << me); goto done
  :: else
  fi;
  h = head_out;
  if
  :: (t & ~CLOSED) >= h + 1 ->
    if
    :: tail == t -> goto spilled
    :: else -> t = tail; goto again
    fi
  :: else
  fi;
  atomic {                                         // [close] C1: lands before it, or fails
    if
    :: tail == t -> tail = t + 1; accepted = accepted | (1 << me)
    :: else -> t = tail; goto again
    fi
  }
  task = me;
  lap = (t & ~CLOSED) + 1;                         // [slot] S2
  goto done;
spilled:
  c = chain;
push:
  if
  :: IS_CLOSED(c) -> refused = refused | (1 << me); goto done
  :: else
  fi;
  next[me] = c & ~CLOSED;
  atomic {                                         // [spill] K2, [close] C1
    if
    :: chain == c -> chain = (c & CLOSED) | me; accepted = accepted | (1 << me)
    :: else -> c = chain; goto push
    fi
  }
  ready[me] = true;                                // [spill] K5
done: skip
}

proctype closer() {
#ifdef MUTANT_TAIL_BY_STORE
  byte t;
#endif
#ifdef MUTANT_STATUS_FIRST
  word = AWAKE | CLOSE;
#endif
#ifdef MUTANT_TAIL_BY_STORE
  t = tail; tail = t | CLOSED;
#else
  tail = tail | CLOSED;                            // ring_.close(): [close] C1
#endif
#ifndef MUTANT_SPILL_OPEN
  chain = chain | CLOSED;                          // spill_.close(): [close] C1
#endif
#if defined(MUTANT_CLOSE_WITHOUT_WAKE)
  word = word | CLOSE
#elif !defined(MUTANT_STATUS_FIRST)
  word = AWAKE | CLOSE                             // door.tell(close): [close] C2
#endif
}

inline execute(t) {
  assert(!(ran & (1 << t)));
  ran = ran | (1 << t)
}

#define slot_ready (lap == head + 1)
#define chain_has ((chain & ~CLOSED) != NONE)

active proctype loop() {
  byte head, taken = NONE, c;
  atomic { run poster(0); run poster(1); run poster(2); run closer() }
  do
  :: // drain: what can run
    do
    :: atomic { slot_ready -> head++; execute(task) }; head_out = head
    :: atomic {
        taken == NONE && chain_has ->
#ifdef MUTANT_TAKE_OPENS
        taken = chain & ~CLOSED; chain = NONE
#else
        taken = chain & ~CLOSED; chain = (chain & CLOSED) | NONE   // [spill] K3
#endif
      }
    :: atomic { taken != NONE && ready[taken] -> execute(taken); taken = next[taken] }
    :: else -> break
    od;
    if                                             // finished, heed_close: [close] C3
    :: word & CLOSE ->
      // drained: ring_.head() == ring_.tail(), then spill_.front() == nullptr
#ifdef MUTANT_EMPTY_IF_UNPUBLISHED
      if
      :: !slot_ready
#else
      if
      :: head == (tail & ~CLOSED)                  // [close] C4
#endif
        ->
        if
#ifdef MUTANT_SPILL_FORGOTTEN
        :: break
#else
        :: taken == NONE && !chain_has -> break
        :: else
#endif
        fi
      :: else                                      // wait_for_claims
      fi
    :: else ->                                     // park: [sleep]
      atomic {
        if
        :: word == AWAKE && !slot_ready && !chain_has -> word = ASLEEP
        :: else
        fi
      }
      ((word & ASLEEP) == 0 || slot_ready || chain_has || (taken != NONE && ready[taken]));
      atomic { word = (word & CLOSE) | AWAKE }
    fi
  od;
  returned = true;
  // All posts answer; then each has run, or has been refused.
  (_nr_pr == 1);
  assert(ran == accepted);
  assert((accepted | refused) == (1 << POSTERS) - 1 && !(accepted & refused))
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
