// room.pml - [room]: posters that wait for room with overflow::block, and the loop that makes it
//
// What stands for what
//   poster        queue::offer with overflow::block: claim, visit, wait_for_room, offer_spill
//   loop          run_next, publish_head: returning::give, slot_array::publish_head, waiting_room::call
//   closer        queue::close
//   tail, head_out, chain   a ring of one slot and a spill behind it; blocks: an arena of one
//   epoch, on_epoch[p]      the futex word; a wait sleeps only if the word is still what was read
//   buffered      the loop's store buffer: a head that others do not see yet. As the code is, H2/R3 is
//                 seq_cst and never waits there; mutant HEAD_PLAIN puts it there. The posters' R1 and
//                 all that is done to blocks, chain and epoch is locked
//
// Two scenes: the loop runs all and nobody closes, so each wait must end by itself; or the loop goes
// away after its first task and the close must end them. In both, with an arena of one block and of none.
//
// A lap that is late is a poster that is slow, so laps have no buffer. Left out: tickets (spill.pml),
// acceptance at the close (close.pml), patience and glances, which wait for nothing, and lanes, which
// share room and blocks and call in the same way.
//
// mutant: HEAD_PLAIN expects: invalid end state -- R3 a release store, which R4 passes
// mutant: CALL_FIRST expects: invalid end state -- R4 before R3
// mutant: COUNTED_LATE expects: invalid end state -- R1 behind R2
// mutant: EPOCH_LATE expects: invalid end state -- the epoch is read behind R2
// mutant: EPOCH_KEPT expects: invalid end state -- R4 wakes and leaves the epoch as it was
// mutant: ONE_WOKEN expects: invalid end state -- R4 wakes one of several
// mutant: NO_CALL_AT_CLOSE expects: acceptance cycle -- close() does not call
// mutant: CLAIM_PASSES_SPILL expects: invalid end state -- R2 looks at blocks only, not at the ring

#define POSTERS 2
#define CLOSED 128

byte tail = 1, head_out, lap = 1;
bit chain = 1, ready = 1;        // the spill: at most one node, because there is one block
byte blocks;                     // the ring's slot and the block are taken when the posters come
byte waiting, epoch;
bit on_epoch[POSTERS];
byte buffered;                   // 0: nothing
byte answered, ran;

inline try_claim() {             // queue::claim, ring::claim. Sets got: 0 full, 1 claimed, 2 closed
  got = 0;
  if
  :: chain -> got = (tail & CLOSED -> 2 : 0)
  :: else ->
    do
    :: atomic { t = tail; got = (t & CLOSED -> 2 : 0) }
      if
      :: got == 2 -> break
      :: else
      fi;
      atomic {                                           // head_seen(): [head] H3, [room] R2
        if
        :: t >= head_out + 1 && tail == t -> break
        :: t >= head_out + 1 && tail != t -> skip
        :: else ->
          if
          :: tail == t -> tail = t + 1; got = 1; break
          :: else
          fi
        fi
      }
    od
  fi
}

inline take_block() {
  atomic {
    if
    :: blocks > 0 -> blocks--; had = true                // [free] F2, [room] R2
    :: else
    fi
  }
}

proctype poster(byte me; byte posts) {
  byte t, got, seen;
  bit had, visits;
  do
  :: posts == 0 -> break
  :: else ->
    posts--;
    try_claim();
    if
    :: got == 0 ->
#ifndef MUTANT_COUNTED_LATE
      visits = true; atomic { waiting++ };               // visit: [room] R1
#endif
      take_block();                                      // offer_spill
      do                                                 // wait_for_room
      :: had || got != 0 -> break
      :: else ->
#ifndef MUTANT_EPOCH_LATE
        seen = epoch;
#endif
#ifndef MUTANT_CLAIM_PASSES_SPILL
        try_claim();                                     // [room] R2
#else
        got = (tail & CLOSED -> 2 : 0);
#endif
        if
        :: got != 0 -> break
        :: else
        fi;
        take_block();                                    // [room] R2
        if
        :: had -> break
        :: else
        fi;
#ifdef MUTANT_EPOCH_LATE
        seen = epoch;
#endif
#ifdef MUTANT_COUNTED_LATE
        if
        :: visits
        :: else -> visits = true; waiting++
        fi;
#endif
        atomic { on_epoch[me] = (epoch == seen) }        // futex_wait
        !on_epoch[me]
      od
    :: else
    fi;
    if
    :: got == 1 -> atomic { lap = (t & ~CLOSED) + 1 }               // fill
    :: had && got != 2 ->                                           // offer_spill
      had = false;
      atomic {                                                      // [spill] K2
        if
        :: tail & CLOSED -> blocks++; got = 2
        :: else -> chain = true; ready = true
        fi
      }
    :: else
    fi;
    if
    :: visits -> atomic { waiting--; visits = false }               // [leave] W1
    :: else
    fi;
    d_step { answered++; t = 0; seen = 0; got = 0 }
  od
}

inline call() {                                          // waiting_room::call
  if
  :: waiting == 0                                        // [room] R4
  :: else ->
#ifndef MUTANT_EPOCH_KEPT
    atomic {
      epoch++;
#ifdef MUTANT_HEAD_PLAIN
      if
      :: buffered -> head_out = buffered; buffered = 0   // a locked step
      :: else
      fi
#endif
    }
#endif
#ifdef MUTANT_ONE_WOKEN
    atomic {
      if
      :: on_epoch[0] -> on_epoch[0] = false
      :: on_epoch[1] -> on_epoch[1] = false
      :: else
      fi
    }
#else
    d_step { on_epoch[0] = false; on_epoch[1] = false }
#endif
  fi
}

proctype closer() {
  atomic { tail = tail | CLOSED };                       // [close] C1
#ifndef MUTANT_NO_CALL_AT_CLOSE
  call()
#endif
}

#ifdef MUTANT_HEAD_PLAIN
// Drains the loop's store buffer, some time.
active proctype memory() {
end: do
  :: atomic { buffered -> head_out = buffered; buffered = 0 }
  od
}
#endif

#define POSTS 3

active proctype loop() {
  byte head;
  bit taken, owes_block, leaves;
  byte tasks = POSTS + 2;
  atomic {
    if
    :: leaves = true
    :: skip
    fi;
    if
    :: chain = false; ready = false; tasks--             // an arena of no blocks
    :: skip
    fi;
    run poster(0, 2); run poster(1, 1)
  }
end: do
  :: atomic { !leaves && ran == tasks -> break }
  :: atomic { leaves && ran == 1 -> run closer(); break }
  :: else ->
    if
    :: atomic { !taken && lap == head + 1 -> head++; ran++ }        // run_slot
    :: atomic { chain && !taken -> chain = false; taken = true };   // [spill] K3
      atomic { ready -> ready = false; taken = false; ran++; owes_block = true }   // run_node
    fi;
    // publish_head
#ifdef MUTANT_CALL_FIRST
    call();
#endif
    if
    :: owes_block -> atomic { owes_block = false; blocks++ }        // [free] F1, [room] R3
    :: else
    fi;
#ifdef MUTANT_HEAD_PLAIN
    atomic { buffered = head };
#else
    head_out = head;                                                // [head] H2, [room] R3
#endif
#ifndef MUTANT_CALL_FIRST
    call()
#endif
  od
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> (answered == POSTS) }
#endif
