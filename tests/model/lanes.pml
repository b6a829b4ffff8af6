// lanes.pml - [busy], [join], [part]: lanes that come, post, and go, while the loop sleeps, closes and ends
//
// What stands for what
//   producer      ingress::join, lane::post, lane_ring::claim, doorbell::look, ~basic_producer
//   loop          runner::run: adopt, reap, drain, heed_close with settle_lanes, drained; park();
//                 then core::tear_down: destroy_all, drop_lanes
//   closer        ingress::close, doorbell::tell
//   stores[p]     producer p's store buffer, first in first out: a lane's posts have no locked
//                 instruction, so all of D1, tail, lap and D5 may be in it. A locked instruction of p
//                 drains it, and so does a barrier
//   busy, tail, lap   of each lane, as the loop sees them; lap counts what was published
//   freed[p]      the lane's memory
//
// Producer 0 posts without a fence (the loop pays), producer 1 with one (D1 and P1 seq_cst).
//
// x86-TSO keeps D1, tail, lap and D5 in order. Weaker CPUs may let D1 and the tail pass each other, but
// not D5 or a lap (release); the loop reads a tail only behind busy == 0 (acquire). What decides, D1
// against D2, is the barrier's or the fence's business on any CPU.
//
// Left out: a full lane (spill.pml, room.pml: the same queue), the shared queue, the poller, which fence
// (sleep.pml).
//
// mutant: NO_BARRIER expects: assertion violated ((ran[0]==accepted[0]) -- closing, the loop issues no barrier between D3 and D4
// mutant: CLOSED_LATE expects: assertion violated ((ran[0]==accepted[0]) -- D3 after the close bit of the status word
// mutant: BUSY_LATE expects: assertion violated ((ran[0]==accepted[0]) -- D1 behind D2
// mutant: BUSY_WEAK expects: assertion violated ((ran[0]==accepted[0]) -- who posts strong writes D1 without a fence, and the loop has no barrier
// mutant: IDLE_EARLY expects: assertion violated ((ran[0]==accepted[0]) -- D5 before the task is claimed
// mutant: BUSY_IGNORED expects: assertion violated ((ran[0]==accepted[0]) -- D4 looks at what is in the lane only
// mutant: JOINERS_NOT_SEEN_ASLEEP expects: assertion violated ((ran[0]==accepted[0]) -- L2 does not look at the list of joiners
// mutant: JOINERS_NOT_SEEN_CLOSING expects: assertion violated ((ran[0]==accepted[0]) -- drained() does not look at the list of joiners
// mutant: JOINED_BY_STORE expects: assertion violated ((ran[0]==accepted[0]) -- J1 a load and a store
// mutant: REAPED_FULL expects: assertion violated ((ran[0]==accepted[0]) -- a lane is dropped with tasks in it
// mutant: FREED_BY_PRODUCER expects: assertion violated  !(freed[0]) -- the producer frees what the loop still holds
// mutant: PARTED_SILENTLY expects: assertion violated (freed[0] -- a producer that goes does not wake the loop
// mutant: CLOSE_WITHOUT_WAKE expects: acceptance cycle -- the close bit does not end a sleep

#define AWAKE 1
#define IN_CHANNEL 2
#define WANTED 8
#define CLOSE 32
#define MODE(w) ((w) & 7)
#define UP(w) ((((w) & ~WANTED) & ~7) | AWAKE)
#ifdef LIVE
#define POSTS 1
#else
#define POSTS 2
#endif
mtype = { BUSY, TAIL, LAP, NOT_BUSY };

chan stores[2] = [4] of { mtype };
byte word = AWAKE;
bit closed, busy[2], freed[2], on_word;
byte tail[2], lap[2], holders[2] = 2;
byte joining, parted;                   // joining: a set of lanes
byte accepted[2], ran[2], refused[2], made;
bit returned, stays;

inline arrive(p) {                      // the oldest store becomes visible
  stores[p]?what;
  if
  :: what == BUSY -> busy[p] = true
  :: what == TAIL -> tail[p]++
  :: what == LAP -> lap[p]++
  :: what == NOT_BUSY -> busy[p] = false
  fi;
  what = 0
}
inline flush(p) {
  d_step {
    do
    :: len(stores[p]) > 0 -> arrive(p)
    :: else -> break
    od
  }
}
inline free(p) { assert(!freed[p] && holders[p] == 0); freed[p] = true }

// doorbell::move: one locked step, of which the winner wakes.
inline move(bits) {
  d_step {
    if
    :: MODE(word) == IN_CHANNEL -> word = UP(word) | (bits & ~WANTED); on_word = false
    :: else -> word = word | bits
    fi
  }
}

proctype producer(byte p; byte posts) {
  mtype what;
  byte left_to_do;
#ifdef MUTANT_JOINED_BY_STORE
  byte seen = joining;
  joining = seen | (1 << p);
#else
  atomic { flush(p); joining = joining | (1 << p) }        // [join] J1
#endif
  left_to_do = posts;
  do
  :: left_to_do == 0 -> break
  :: else ->
    left_to_do--;
    assert(!freed[p]);
#ifndef MUTANT_BUSY_LATE
    if
#ifndef MUTANT_BUSY_WEAK
    :: p == 1 -> atomic { flush(p); busy[p] = true }       // [busy] D1 seq_cst
#endif
    :: else -> stores[p]!BUSY                              // [busy] D1 with a barrier
    fi;
#endif
    if
    :: closed -> refused[p]++                              // [busy] D2
    :: else ->
#ifdef MUTANT_BUSY_LATE
      stores[p]!BUSY;
#endif
#ifdef MUTANT_IDLE_EARLY
      stores[p]!NOT_BUSY;
#endif
      accepted[p]++;
      stores[p]!TAIL;                                      // claim
      stores[p]!LAP;                                       // [slot] S2, [sleep] P1
      if
      :: p == 1 -> atomic { flush(p) }                     // strong
      :: else
      fi;
      if                                                   // look: [sleep] P2
      :: MODE(word) == IN_CHANNEL -> atomic { flush(p); move(0) }
      :: else
      fi
    fi;
    assert(!freed[p]);
#ifndef MUTANT_IDLE_EARLY
    stores[p]!NOT_BUSY                                     // [busy] D5
#else
    if
    :: refused[p] -> stores[p]!NOT_BUSY
    :: else
    fi
#endif
  od;
#ifndef LIVE
  if
  :: p == 1 -> stays = true; closed                        // as long as the loop is open
  :: skip
  fi;
#endif
  atomic { flush(p); parted++ };                           // part(): [part] V1
  assert(!freed[p]);
  atomic {                                                 // let_go(): [part] V1, V2
    holders[p]--;
    if
#ifdef MUTANT_FREED_BY_PRODUCER
    :: freed[p] = true
#else
    :: holders[p] == 0 -> free(p)
    :: else
#endif
    fi
  }
#ifndef MUTANT_PARTED_SILENTLY
  move(WANTED);                                            // door.tell(wanted)
#endif
  made++
}

proctype closer() {
#ifndef LIVE
  if
  :: skip
  :: goto now
  fi;
  timeout -> assert(ran[0] == accepted[0] && ran[1] == accepted[1]);      // nothing moves any more
  assert(freed[0] && (stays || freed[1]));
now: skip;
#endif
#ifdef MUTANT_CLOSED_LATE
  move(CLOSE);
#endif
  closed = true;                                           // [busy] D3
#ifdef MUTANT_CLOSE_WITHOUT_WAKE
  word = word | CLOSE
#elif !defined(MUTANT_CLOSED_LATE)
  move(CLOSE)                                              // [close] C2
#endif
}

active proctype memory() {
  mtype what;
end: do
  :: atomic { len(stores[0]) > 0 -> arrive(0) }
  :: atomic { len(stores[1]) > 0 -> arrive(1) }
  od
}

#define has(set, p) ((set) & (1 << (p)))
#ifdef MUTANT_BUSY_IGNORED
#define quiet(p) (tail[p] == head[p])
#else
#define quiet(p) (!busy[p] && tail[p] == head[p])
#endif
// lane::empty(): D4 and then what is in the lane, which is two looks.
inline look_into(p) {
  if
  :: !idle || !has(lanes, p)
  :: else ->
#ifndef MUTANT_BUSY_IGNORED
    idle = !busy[p];                                      // [busy] D4
#endif
    atomic { idle = idle && tail[p] == head[p] }
  fi
}
inline reap(p) {
  if
  :: has(lanes, p) && holders[p] == 1 ->                   // parted(): [part] V2
    atomic {
      if
#ifdef MUTANT_REAPED_FULL
      :: true ->
#else
      :: quiet(p) ->                                       // its producer is gone: one look
#endif
        lanes = lanes & ~(1 << p); reaped++; holders[p]--; free(p)
#ifndef MUTANT_REAPED_FULL
      :: else
#endif
      fi
    }
  :: else
  fi
}
inline drain(p) {
  do
  :: atomic { has(lanes, p) && lap[p] > head[p] -> assert(!freed[p]); head[p]++; ran[p]++; some = true }
  :: else -> break
  od
}
inline drop(p) {
  if
  :: has(lanes, p) ->
    (!busy[p]);                                            // destroy_all: [busy] D4
    atomic {
      assert(tail[p] == head[p]);                          // nothing accepted is left to destroy
      holders[p]--;
      if
      :: holders[p] == 0 -> free(p)
      :: else
      fi
    }
  :: else
  fi
}

active proctype loop() {
  mtype what;
  byte lanes, head[2], reaped;
  bit ended, idle, news, some;
  atomic {
    run producer(0, POSTS);
#ifdef LIVE
    freed[1] = true; refused[1] = 1; made = 1;             // one lane: fewer states
#else
    run producer(1, 1);
#endif
    run closer()
  }
turn:
  atomic { lanes = lanes | joining; joining = 0 };         // adopt(): [join] J2
  if
  :: parted != reaped -> reap(0); reap(1)                  // [part] V2
  :: else
  fi;
  drain(0); drain(1);
  if                                                       // finished(), heed_close(): [close] C3
  :: word & CLOSE ->
    if
    :: !ended ->
      ended = true;
      if                                                   // settle_lanes(has_lanes())
      :: lanes || joining ->
#if !defined(MUTANT_NO_BARRIER) && !defined(MUTANT_BUSY_WEAK)
        flush(0); flush(1)
#else
#ifdef MUTANT_BUSY_WEAK
        flush(0)
#else
        skip
#endif
#endif
      :: else
      fi
    :: else
    fi;
#ifdef MUTANT_JOINERS_NOT_SEEN_CLOSING
    idle = true;
#else
    idle = (joining == 0);                                // drained(), ingress::empty(): lanes_wait()
#endif
    look_into(0); look_into(1);
    if
    :: idle -> goto leave
    :: else -> goto turn
    fi
  :: else
  fi;
  if
  :: some -> some = false; goto turn                       // nothing_happened() is false
  :: else
  fi;
  atomic {                                                 // publish: [sleep] L1
    if
    :: word & (WANTED | CLOSE) -> word = word & ~WANTED; goto turn
    :: else -> word = IN_CHANNEL
    fi
  }
  flush(0); flush(1);                                      // barrier()
  news = (has(lanes, 0) && lap[0] > head[0]);              // [sleep] L2
  atomic { news = news || (has(lanes, 1) && lap[1] > head[1]) };
#ifndef MUTANT_JOINERS_NOT_SEEN_ASLEEP
  atomic { news = news || joining != 0 };                  // [join] J2, [sleep] L2
#endif
  if
  :: !news -> atomic { on_word = (word == IN_CHANNEL) }; !on_word
  :: else -> news = false
  fi;
  atomic {                                                 // wake_self
    if
    :: MODE(word) == IN_CHANNEL -> word = UP(word)
    :: else
    fi
  }
  goto turn;
leave:
  assert(ran[0] == accepted[0] && ran[1] == accepted[1]);
  returned = true;
  // make_producer() does not race with the destructor.
  (has(joining | lanes, 0) || freed[0]) && (has(joining | lanes, 1) || freed[1]);
  atomic { lanes = lanes | joining; joining = 0 };         // tear_down: destroy_all, drop_lanes
  flush(0); flush(1);                                      // settle_lanes
  drop(0); drop(1);
  (made == 2);
  assert(freed[0] && freed[1]);
  assert(accepted[0] + refused[0] == POSTS && accepted[1] + refused[1] == 1);
  assert(ran[0] == accepted[0] && ran[1] == accepted[1])
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> (returned && freed[0] && freed[1]) }
#endif
