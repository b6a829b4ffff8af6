// cells.pml - [cell]: a row of cells in which waiters and tokens meet (phase 2)
//
// What stands for what
//   cell, joined, sent_to   basic_queue2: the cells and the next one of either side
//   pending, refused, fixed, withdrawn   of a node, as there
//   word, closed  permit_account
//   waiter        acquire(n), inside, release(n)
//   leaver        a timer or cancel()
//   known[w]      w has not been told: asserted where a waiter is touched
//
// Scenes: two waits for one permit, released by a stranger, and one of them leaves; the first of them for two, which
// two have leave; one leaves, and close().
//
// Store buffers need none: cells, `pending` and the counters are changed by read-modify-writes while others may
// know them; what is stored plainly is one's own. A CAS loop is one step. Left out: segments and epochs (a row
// never ends here), skip_to(), and who is touched after the queue is gone, which is the segments' business too.
//
// mutant: LEFT_BY_CAS expects: assertion violated (word==total) -- a cell is cancelled in one step, and the account asked then
// mutant: FOUND_DROPPED expects: assertion violated (done== -- a token found in a cell that is cancelled is dropped
// mutant: WITHDRAWN_FIRST expects: assertion violated (done== -- the debt goes down before the cell is reserved
// mutant: EARLY_BY_STORE expects: assertion violated (done== -- a token is put into an empty cell by a store
// mutant: BACK_BY_STORE expects: acceptance cycle -- a waiter is put back by a store, over a token
// mutant: JOINED_BY_STORE expects: assertion violated (done== -- a waiter is put into its cell by a store, over a token
// mutant: PASSED_LEAVING expects: assertion violated (done== -- a token that finds `leaving` goes on to the next cell
// mutant: LEAVES_TWICE expects: assertion violated (done== -- two may have it leave at once
// mutant: LEFT_UNCOUNTED expects: assertion violated (done== -- cancelled cells are not counted
// mutant: RETURNED_DROPPED expects: assertion violated (word==total) -- permits of who leaves are dropped
// mutant: CLOSED_LOST expects: assertion violated (inside<=total) -- a token that says "closed" is taken for a permit

#define GRANTED 0
#define CLOSED 1
#define LEFT 2
#define EMPTY 0
#define TOKEN 1
#define TOKEN_CLOSED 2
#define DONE 3
#define LEAVING 4
#define CANCELLED 5
#define NAME(w) (6 + (w))
#define CELLS 7
#define MIN(a, b) ((a) < (b) -> (a) : (b))
#define OWED (word < 0 && !closed -> -word : 0)
#define SET(w) (1 << (w))

short word;
bit closed;
byte cell[CELLS], joined, sent_to;
byte pending[2], refused[2], withdrawn[2], held[2], status[2], cells[2], first[2];
bit ready[2], fixed[2], known[2], promised[2];
byte total = 2, expected = 2, told, inside, done;

inline settle(w) {                   // and told_list::add
  assert(known[w]);
  held[w] = held[w] + cells[w] - withdrawn[w] - refused[w];
  status[w] = (refused[w] != 0 && status[w] == GRANTED -> CLOSED : status[w]);
  known[w] = false;
  if
  :: status[w] != GRANTED -> returned = returned + held[w]; held[w] = 0
  :: else
  fi;
  over = over | SET(w)
}

inline count(w, n) {                 // one step: who counts the last has it
  assert(known[w] && pending[w] >= n);
  pending[w] = pending[w] - n;
  if
  :: pending[w] == 0 -> settle(w)
  :: else
  fi
}

inline put_one() {                   // a token, `kind`, into cell i. Sets passed
  passed = false;
#ifdef MUTANT_EARLY_BY_STORE
  seen = cell[i];
  if
  :: atomic { seen == EMPTY -> cell[i] = TOKEN + kind }
  :: seen != EMPTY ->
#endif
  atomic {
    seen = cell[i];
    if
    :: seen == EMPTY -> cell[i] = TOKEN + kind
#ifndef MUTANT_PASSED_LEAVING
    :: seen == LEAVING -> cell[i] = TOKEN + kind
#else
    :: seen == LEAVING -> passed = true
#endif
    :: seen == CANCELLED -> passed = true
    :: else -> assert(seen >= NAME(0)); cell[i] = DONE
    fi
  }
#ifdef MUTANT_EARLY_BY_STORE
  fi;
#endif
  if
  :: seen >= NAME(0) -> atomic { w = seen - NAME(0);                // feed: nobody else counts a cell for one
      assert(known[w]);
#ifndef MUTANT_CLOSED_LOST
      refused[w] = refused[w] + (kind == CLOSED);
#endif
      count(w, 1); w = 0 }
  :: else
  fi;
  seen = 0
}

// release(n), or n tokens that are owed or were found in a cell. Tells those in `over` at its end.
proctype sender(byte n; byte kind; byte over; bit released) {
  byte i, stop, w, seen, more, returned;
  bit passed;
  atomic { more = n; n = 0 }
give:
  if
  :: released -> atomic { n = more; more = MIN(OWED, n); word = word + n; n = 0 }
  :: else
  fi;
  do                                                      // deliver
  :: more == 0 -> break
  :: else ->
    atomic { i = sent_to; sent_to = sent_to + more; stop = sent_to; more = 0 };
    do
    :: i == stop -> break
    :: else -> put_one(); atomic { more = more + passed; passed = 0; i++ }
    od;
    i = 0; stop = 0
  od;
#ifndef MUTANT_RETURNED_DROPPED
  if
  :: returned > 0 -> atomic { more = returned; returned = 0; kind = GRANTED; released = true }; goto give
  :: else
  fi;
#endif
  atomic { told = told | over; over = 0 }
}

proctype waiter(byte me; byte n) {
  byte i, end, got, seen, over, returned;
  bit late;
  atomic {                                                // take
    held[me] = (word > 0 && !closed -> MIN(word, n) : 0);
    word = word - n; late = closed;
    if
    :: late -> held[me] = 0; status[me] = CLOSED
    :: else -> cells[me] = n - held[me]; fixed[me] = true
    fi
  }
  if
  :: late -> word = word + n
  :: !late && cells[me] == 0
  :: !late && cells[me] > 0 ->
    atomic { i = joined; first[me] = i; joined = joined + cells[me]; end = joined; known[me] = true };
    if
    :: cells[me] == 1 ->                                  // join_one
#ifdef MUTANT_JOINED_BY_STORE
      seen = cell[i];
      if
      :: atomic { seen == EMPTY -> pending[me] = 1; fixed[me] = false; cell[i] = NAME(me) }
      :: seen != EMPTY ->
#endif
      atomic {
        if
        :: cell[i] == EMPTY -> pending[me] = 1; fixed[me] = false; cell[i] = NAME(me)
        :: else -> refused[me] = (cell[i] == TOKEN_CLOSED); settle(me)
        fi
      }
#ifdef MUTANT_JOINED_BY_STORE
      fi
#endif
    :: else ->                                            // join_many
      pending[me] = cells[me] + 1; got = 1;
      do
      :: i == end -> break
      :: else ->
        atomic {
          if
          :: cell[i] == EMPTY -> cell[i] = NAME(me)
          :: else -> refused[me] = refused[me] + (cell[i] == TOKEN_CLOSED); cell[i] = DONE; got++
          fi;
          i++
        }
      od;
      fixed[me] = false;
      atomic { count(me, got); got = 0 }
    fi;
    if
    :: returned > 0 -> run sender(returned, GRANTED, over, true)
    :: else -> atomic { told = told | over }
    fi;
    atomic { returned = 0; over = 0; i = 0; end = 0; ready[me] = true };
    told & SET(me)
  fi;
  atomic {
    ready[me] = true;
    assert(promised[me] == (status[me] == LEFT));         // who was promised hears so, and nobody else
    assert(status[me] == GRANTED || held[me] == 0);
    if
    :: status[me] == GRANTED ->
      assert(held[me] == n); inside = inside + n; assert(inside <= total); inside = inside - n;
      run sender(n, GRANTED, 0, true)
    :: else
    fi;
    done++
  }
}

proctype leaver(byte v) {
  byte i, k, off, back, reserved, counted, found, found_closed, over, returned;
  ready[v];                                               // nobody knows it before
  if
  :: pending[v] == 0 -> goto end
  :: else
  fi;
#ifndef MUTANT_LEAVES_TWICE
  atomic {
    if
    :: fixed[v] -> goto end
    :: else -> fixed[v] = true
    fi
  }
#endif
#ifdef MUTANT_WITHDRAWN_FIRST
  atomic { off = MIN(OWED, cells[v]); word = word + off };
#endif
  do                                                      // reserve
  :: k == cells[v] -> break
  :: else ->
    atomic {
      if
#ifdef MUTANT_LEFT_BY_CAS
      :: cell[first[v] + k] == NAME(v) -> cell[first[v] + k] = CANCELLED; reserved++
#else
      :: cell[first[v] + k] == NAME(v) -> cell[first[v] + k] = LEAVING; reserved++
#endif
      :: else
      fi;
      k++
    }
  od;
  if
  :: reserved == 0 -> goto end
  :: else
  fi;
  atomic {
    assert(known[v]);
#ifndef MUTANT_WITHDRAWN_FIRST
    off = MIN(OWED, reserved); word = word + off;
#endif
#ifdef MUTANT_LEFT_BY_CAS
    off = reserved;
#endif
    off = MIN(off, reserved);
    if
    :: off > 0 -> status[v] = LEFT; withdrawn[v] = off; promised[v] = true
    :: else
    fi;
    k = 0; back = reserved - off;
#ifndef MUTANT_LEFT_UNCOUNTED
    counted = off
#endif
  }
  do                                                      // let_go
  :: reserved == 0 -> break
  :: else ->
    i = first[v] + k;
#ifdef MUTANT_BACK_BY_STORE
    if
    :: back > 0 && cell[i] == LEAVING -> cell[i] = NAME(v); back--; reserved--
    :: else
    fi;
#endif
    atomic {
      if
      :: cell[i] == DONE || reserved == 0
      :: cell[i] != DONE && reserved > 0 && back > 0 ->
        back--; reserved--;
        if
        :: cell[i] == LEAVING -> cell[i] = NAME(v)
        :: else -> refused[v] = refused[v] + (cell[i] == TOKEN_CLOSED); counted++
        fi
      :: cell[i] != DONE && reserved > 0 && back == 0 ->
        reserved--;
        found = found + (cell[i] == TOKEN); found_closed = found_closed + (cell[i] == TOKEN_CLOSED);
        cell[i] = CANCELLED
      fi;
      k++; i = 0
    }
  od;
  atomic {
    if
    :: counted > 0 -> count(v, counted)
    :: else
    fi;
#ifdef MUTANT_FOUND_DROPPED
    found = 0;
#endif
    if
    :: found > 0 -> run sender(found, GRANTED, 0, false)
    :: else
    fi;
    if
    :: found_closed > 0 -> run sender(found_closed, CLOSED, 0, false)
    :: else
    fi;
#ifdef MUTANT_RETURNED_DROPPED
    returned = 0;
#endif
    if
    :: returned > 0 -> run sender(returned, GRANTED, over, true)
    :: else -> told = told | over
    fi
  }
end: skip
}

proctype closer() {
  byte k;
  atomic {
    k = OWED; word = word + k; closed = true;
    if
    :: k > 0 -> run sender(k, CLOSED, 0, false)
    :: else
    fi
  }
}

init {
  atomic {
    if
#ifndef LIVE
    :: total = 1; expected = 1; run waiter(0, 2); run sender(1, GRANTED, 0, true); run leaver(0); run closer()
    :: total = 0; run waiter(0, 1); run waiter(1, 1); run leaver(0); run closer()
#endif
    :: word = 1; run waiter(0, 2); run waiter(1, 1); run sender(1, GRANTED, 0, true); run leaver(0)
    :: run waiter(0, 1); run waiter(1, 1); run sender(1, GRANTED, 0, true); run sender(1, GRANTED, 0, true); run leaver(0)
#ifndef LIVE
    :: run waiter(0, 2); run waiter(1, 1); run sender(1, GRANTED, 0, true); run sender(1, GRANTED, 0, true);
      run leaver(0); run leaver(0)
#endif
    fi
  }
#ifndef LIVE
  timeout ->                                              // nothing moves any more
  assert(done == expected);
  assert(word == total)
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
ltl live { <> (done == 2) }
#endif
