// telling.cpp - scenarios: a thread sleeps in its own frame, and leaves it as soon as it is told
#include "explore/scene.hpp"
#include "explore/waiting.hpp"

using namespace explore;

namespace {

// A wake by the address of what was given back is one of somebody else.
struct frame_traits : waiting_traits {
  struct parker : explore::parker {
    template <class Word>
    static void wake_all(const Word& word) noexcept {
      ledger::must(!engine::the().memory().is_dead(word.address()), "a word is woken whose memory was given back");
      explore::parker::wake_all(word);
    }
  };
};

struct frame {
  hybridloop::detail::notice<frame_traits> told;
  char said = 0;
};

void tell(frame& f) {
  engine::the().touch(&f.said, true);
  f.told.tell(1);
}
void listen(frame& f, nanos deadline) {
  if (!f.told.wait(deadline)) f.told.wait(forever);
  engine::the().touch(&f.said, false);
}

}  // namespace

EXPLORE_ROUSED(told_in_a_frame, 3) {
  paged<frame> f;
  start("waiter", [&] {
    listen(*f, forever);
    f.destroy();
  });
  start("teller", [&] { tell(*f); });
  play();
}

EXPLORE_ROUSED(told_when_time_is_up, 3) {
  paged<frame> f;
  start("waiter", [&] {
    listen(*f, 1000);
    f.destroy();
  });
  start("teller", [&] { tell(*f); });
  play();
}
