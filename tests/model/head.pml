// head.pml - [head]: slots are given back while runs are nested in each other
//
// What stands for what
//   loop          runner::drain_ingress, queue::run_next, run_slot, publish_head, publish_head_in_time
//   frames        run_slot() nested in each other: at[d] is the slot of frame d, outermost[d] its guard's
//                 flag. A task may run the loop inside it (drain and publish, as ~runner does), publish the
//                 head (a post of the loop thread's own into a full ring), or end; and so may the destructor
//                 of its closure
//   producer      claim: known_head, head_seen, the CAS on the tail; fill; publish
//   slot s        life[s]: how many closures live there; a closure that is built over another one fails
//   head, head_out, tail, known_head, oldest, owes     as in the code; owes is unpublished_ != 0
//
// Two rings: the shared one, whose head is published on every way out of a drain, with two producers; and a
// lane's, where that is done only if it owes one, with one. Each of two slots.
//
// [head] on weaker CPUs is release and acquire of head_out and known_head; here a head is seen at once or
// late (a producer may have read it long ago), and H1 comes before H2 in the loop's program. Full rings
// answer `full`, and the producer tries again: that it need not sleep for it is room.pml.
//
// Left out: the spill, whose nodes are given back one by one (spill.pml), stride (it only says when), sleep.
//
// mutant: PAST_RUNNING expects: assertion violated (life -- the published head does not stop at a slot that runs
// mutant: STOPS_AT_INNER expects: assertion violated (life -- oldest is set by each frame, not by the outermost
// mutant: CLEARED_BY_INNER expects: assertion violated (life -- each frame that ends clears oldest, not the outermost
// mutant: CLEARED_EARLY expects: assertion violated (life -- oldest is cleared before the closure is destroyed
// mutant: ADVANCED_LATE expects: assertion violated  !(ran -- the private head moves behind the task
// mutant: NOTHING_OWED expects: invalid end state -- a head that was held back owes nothing, and a lane stays full
// mutant: NEVER_CLEARED expects: invalid end state -- who ends leaves oldest where it is
// mutant: FULL_BY_KNOWN expects: acceptance cycle -- a producer asks for the head it knows only
// mutant: ONE_TOO_MANY expects: assertion violated (life -- H3 lets a claim be one ring and one slot ahead

#define SLOTS 2
#ifdef LIVE
#define TASKS 3
#else
#define TASKS 5
#endif
#define DEPTH 3
#define NOWHERE 99
#define SLOT(i) ((i) & (SLOTS - 1))

byte head, head_out, tail, known_head, oldest = NOWHERE;
bit owes, lane;
byte lap[SLOTS], life[SLOTS];
bit ran[TASKS];
byte made;
byte depth, at[DEPTH], may = 4;   // tasks do so much more than to end
bit outermost[DEPTH], destroys[DEPTH];

// queue::publish_head: slot_array::publish_head(oldest), unpublished_
inline publish_head() {
  d_step {
#ifndef MUTANT_PAST_RUNNING
    if
    :: oldest < head -> head_out = oldest; owes = true
    :: else -> head_out = head; owes = false
    fi;
#else
    head_out = head; owes = false;
#endif
#ifdef MUTANT_NOTHING_OWED
    owes = false
#endif
  }
}

proctype producer() {
  byte i, seen;
  do
  :: made == TASKS -> break
  :: else ->
    i = tail;
again:
    if
    :: made == TASKS -> break
#ifdef MUTANT_ONE_TOO_MANY
    :: made < TASKS && i - known_head > SLOTS ->
#else
    :: made < TASKS && i - known_head >= SLOTS ->
#endif
#ifndef MUTANT_FULL_BY_KNOWN
      seen = head_out;                                       // [head] H3
      known_head = seen;                                     // handed on, may be old by now
#endif
      seen = 0;
      if                                                     // full: again, when that may have changed
      :: i == tail && i - known_head >= SLOTS -> head_out != known_head || tail != i || made == TASKS
      :: else
      fi;
      i = tail;
      goto again
    :: else
    fi;
    atomic {                                                 // [head] H4
      if
      :: tail == i && made < TASKS -> tail++; made++
      :: else -> i = tail; goto again
      fi
    }
    atomic { assert(life[SLOT(i)] == 0); life[SLOT(i)] = 1 } // task.emplace
    atomic { lap[SLOT(i)] = i + 1; i = 0 }                   // [slot] S2
  od
}

// One frame after another. A frame that begins a run goes on at `drain`; one that ends goes back into the
// task around it.
active proctype loop() {
  atomic {
    if
    :: lane = 1; run producer()
    :: lane = 0; run producer(); run producer()
    fi
  }
drain:
  if
  :: depth < DEPTH && lap[SLOT(head)] == head + 1 ->         // run_slot
    atomic {
      at[depth] = head;
#ifndef MUTANT_ADVANCED_LATE
      head++;
#endif
      owes = true;                                           // ++unpublished_
      outermost[depth] = (oldest == NOWHERE);
      if
#ifdef MUTANT_STOPS_AT_INNER
      :: true -> oldest = at[depth]
#else
      :: outermost[depth] -> oldest = at[depth]
      :: else
#endif
      fi;
      destroys[depth] = 0;
      assert(!ran[at[depth]]);
      ran[at[depth]] = true;
      depth++
    }
    goto inside
  :: lap[SLOT(head)] != head + 1 || depth == DEPTH || depth > 0 ->   // nothing, or stopped
    if                                                       // ~let_producers_in, ~runner: publish_heads()
    :: !lane || owes -> publish_head()
    :: else
    fi;
    if
    :: depth > 0 -> goto inside
    :: depth == 0 && head == TASKS -> goto over
    :: depth == 0 && head < TASKS -> lap[SLOT(head)] == head + 1; goto drain
    fi
  fi;
inside:                                                      // the task, then the closure's destructor
  if
  :: may > 0 -> may--; goto drain                            // run_once()
  :: may > 0 -> may--; publish_head()                        // a post of its own
  :: atomic { !destroys[depth - 1] -> destroys[depth - 1] = 1;
#ifdef MUTANT_CLEARED_EARLY
      if
      :: outermost[depth - 1] -> oldest = NOWHERE
      :: else
      fi
#endif
    }
  :: atomic { destroys[depth - 1] ->                         // done::~done
      depth--;
      life[SLOT(at[depth])] = life[SLOT(at[depth])] - 1      // H1: destroy_unmarked
    }
#ifdef MUTANT_ADVANCED_LATE
    head++;
#endif
    if
#ifdef MUTANT_NEVER_CLEARED
    :: false
#elif defined(MUTANT_CLEARED_BY_INNER)
    :: true -> oldest = NOWHERE
#else
    :: outermost[depth] -> oldest = NOWHERE
#endif
#ifndef MUTANT_CLEARED_BY_INNER
    :: else
#endif
    fi;
    atomic { outermost[depth] = 0; destroys[depth] = 0; at[depth] = 0 }
    if
    :: goto drain
    :: publish_head(); goto drain                            // publish_head_in_time()
    fi
  fi;
  goto inside;
over: skip
}

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> (head == TASKS && head_out == TASKS) }
#endif
