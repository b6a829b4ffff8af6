// doorbell.pml - [bell], [list], [leave]: posters that are late while their loop is destroyed and another follows
//
// What stands for what
//   poster        the end of a post: publish, doorbell::look, move, wake_poller; of poster 0 also the
//                 visit of the waiting room, which it leaves last
//   loop(g)       the life of loop g: doorbell::acquire, open_poller, park in the poller, tasks, then
//                 core::tear_down (borrow, bury, ringers, poller.close) and let_go, doorbell::release
//   stranger      somebody else's descriptor: opens what number is free
//   file[n]       what descriptor number n names: nothing, a loop's bell, a stranger's file
//   freed[g]      the memory of loop g, of which a poster touches nothing once its task is published
//
// Loop 1 ends by its tasks, those of posters 0 and 1, which may still be in post(). Loop 2 takes the
// same doorbell. A ring for loop 1 that reaches loop 2 is allowed; one that reaches a stranger is not.
//
// No store buffers: the words are changed by read-modify-writes only, but for the stores of open_poller
// and of release, which lie before a locked instruction of the same thread (L1, A4's counterpart A3 is a
// release store that the next acquire() reads). Left out: channel (no descriptor), handles, which keep
// the memory and the doorbell, and what posters do before they publish.
//
// mutant: NOT_COUNTED expects: assertion violated (((number<2) -- no B1
// mutant: COUNTED_LATE expects: assertion violated (((number<2) -- B1 behind B2
// mutant: LET_GO_EARLY expects: assertion violated (((number<2) -- ringers -= 1 before the ring
// mutant: NOT_AWAITED expects: assertion violated (((number<2) -- B5 does not wait
// mutant: BELL_READ_FIRST expects: assertion violated (((number<2) -- the bell's number is read before B2
// mutant: LOOP_TOUCHED expects: assertion violated  !(freed[g]) -- look() asks the loop itself
// mutant: VISIT_FORGOTTEN expects: assertion violated  !(freed[g]) -- W2 does not wait for who stands in the waiting room
// mutant: NO_LOOK expects: acceptance cycle -- published, and nobody rings

#define IDLE 0
#define AWAKE 1
#define IN_POLLER 3
#define LENT 4
#define DEAD 5
#define STRANGER 9
#define NUMBERS 2

byte word, ringers, bell = NUMBERS, used;
byte file[NUMBERS];
bit edge[NUMBERS];
bit published[3];
bit freed[3];
byte waiting;

proctype poster(byte me; byte g) {
  byte number;
  bit won, counted;
  if
  :: me == 0 -> waiting++                              // visit: [room] R1, and no room to wait for
  :: else
  fi;
  assert(!freed[g]);
  published[me] = true;                                // [sleep] P1
#ifdef MUTANT_BELL_READ_FIRST
  number = bell;
#endif
#ifndef MUTANT_NO_LOOK
  if
  :: word == IN_POLLER ->                              // look(), ring_if_asleep: [sleep] P2
#if !defined(MUTANT_NOT_COUNTED) && !defined(MUTANT_COUNTED_LATE)
    ringers++;                                         // [bell] B1
#endif
    atomic {                                           // [bell] B2
      if
      :: word == IN_POLLER -> word = AWAKE; won = true
      :: else
      fi
    }
#ifdef MUTANT_COUNTED_LATE
    ringers++;
#endif
#ifdef MUTANT_LET_GO_EARLY
    ringers--;
#endif
    if
    :: won ->                                          // wake_poller()
#ifdef MUTANT_LOOP_TOUCHED
      assert(!freed[g]);
#endif
#ifndef MUTANT_BELL_READ_FIRST
      number = bell;                                   // [bell] B3, acquire
#endif
      atomic {
        assert(number < NUMBERS && file[number] != 0 && file[number] != STRANGER);
        edge[number] = true
      }
    :: else
    fi;
#if !defined(MUTANT_NOT_COUNTED) && !defined(MUTANT_LET_GO_EARLY)
    ringers--                                          // [bell] B3
#endif
  :: else
  fi;
#endif
  if
  :: me == 0 -> atomic { assert(!freed[g]); waiting-- }  // ~visit: [leave] W1
  :: else
  fi
}

inline open(what) {                                    // the lowest free number, as kernels do
  atomic {
    if
    :: file[0] == 0 -> number = 0
    :: else -> number = 1
    fi;
    assert(file[number] == 0);
    file[number] = what; edge[number] = false
  }
}

proctype stranger() {
  byte number;
  (file[0] == 0);
  open(STRANGER)
}

#define all_here(g) ((g == 1 && published[0] && published[1]) || (g == 2 && published[2]))

proctype loop(byte g) {
  byte number;
  bit spurious = 1;
  atomic { used == 0 -> used = 1 }                     // acquire(): [list] A4
  open(g);
  bell = number;                                       // open_poller: [bell] B3
  if
  :: g == 1 -> atomic { run poster(0, 1); run poster(1, 1); run stranger(); run loop(2) }
  :: else -> run poster(2, 2)
  fi;
  word = AWAKE;                                        // enter(): idle -> awake
  do
  :: all_here(g) -> break                              // runs its last task, which ends it
  :: else ->
    atomic {                                           // [sleep] L1
      assert(word == AWAKE);
      word = IN_POLLER
    }
    if
    :: all_here(g)                                     // [sleep] L2
    :: else ->
      if
      :: atomic { edge[number] -> edge[number] = false }
      :: spurious -> spurious = false                  // another descriptor
      fi
    fi;
    atomic {                                           // wake_self
      if
      :: word == IN_POLLER -> word = AWAKE
      :: else
      fi
    }
  od;
  word = IDLE;                                         // leave()
#ifndef MUTANT_VISIT_FORGOTTEN
  if
  :: g == 1 -> (waiting == 0)                          // tear_down: [leave] W2
  :: else
  fi;
#endif
  word = LENT;                                         // borrow()
  word = DEAD;                                         // bury(): [bell] B4
#ifndef MUTANT_NOT_AWAITED
  (ringers == 0);                                      // [bell] B5
#endif
  file[number] = 0;                                    // poller.close()
  freed[g] = true;                                     // unmap
  word = IDLE;                                         // release()
  used = 0                                             // [list] A3
}

init { run loop(1) }

#ifdef LIVE
// A run in which nothing moves any more is a fair one too.
bit tick;
active proctype time_passes() {
  do
  :: tick == 0
  od
}
ltl live { <> freed[2] }
#endif
