// ledger.hpp - what was posted, what came of it, and what must be true of that
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <system_error>
#include <utility>
#include <vector>

#include <hybridloop.hpp>

#include "explore/engine.hpp"

namespace explore {

// Tasks of a scene, by number. One ledger for one loop.
class ledger {
 public:
  // Goes where the library puts it; says where it is built, run and destroyed.
  template <std::size_t Ballast>
  class basic_job {
   public:
    basic_job(ledger& book, unsigned number) noexcept : book_(&book), number_(number) { book_->built(this); }
    basic_job(basic_job&& other) noexcept : book_(other.book_), number_(other.number_), live_(other.live_) {
      book_->built(this);
      other.live_ = false;
    }
    basic_job& operator=(basic_job&&) = delete;
    ~basic_job() { book_->destroyed(this, number_, live_); }
    void operator()() {
      engine::the().touch(this, false);
      book_->runs(number_);
    }

   private:
    ledger* book_;
    unsigned number_;
    bool live_ = true;
    std::array<unsigned char, Ballast> ballast_{};
  };
  using job = basic_job<1>;
  using large_job = basic_job<100>;  // takes a block of the arena

  // By `who`, behind all that `who` had posted before. False: not accepted.
  template <class Poster, class Job = job>
  bool post(Poster& to, unsigned who) {
    const unsigned number = draw(who);
    return enter(number, to.post(Job(*this, number)));
  }
  template <class Poster>
  bool try_post(Poster& to, unsigned who) {
    const unsigned number = draw(who);
    return enter(number, to.try_post(job(*this, number)));
  }
  template <class Poster>
  bool post_large(Poster& to, unsigned who) {
    return post<Poster, large_job>(to, who);
  }

  // So many at once. How many were accepted.
  template <class Poster>
  std::size_t post_range(Poster& to, unsigned who, std::size_t count) {
    std::vector<job> jobs;
    jobs.reserve(count);
    const std::size_t first = entries_.size();
    for (std::size_t i = 0; i < count; ++i) jobs.emplace_back(*this, draw(who));
    const auto all = to.post_range(std::make_move_iterator(jobs.begin()), std::make_move_iterator(jobs.end()));
    for (std::size_t i = 0; i < count; ++i) {
      entries_[first + i].known = true;
      entries_[first + i].accepted = i < all.accepted;
    }
    return all.accepted;
  }

  // Run by whoever is the loop, or waits for it. False: closed.
  template <class Loop>
  bool invoke(Loop& l, unsigned who) {
    return invoke(l, who, [] {});
  }
  template <class Loop, class More>
  bool invoke(Loop& l, unsigned who, const More& more) {
    const unsigned number = draw(who);
    bool told = false;
    try {
      l.invoke([this, number, &more, &told] {
        runs(number);
        more();
        engine::the().touch(&told, true);
        told = true;
      });
    } catch (const std::system_error&) {
    }
    engine::the().touch(&told, false);
    entries_[number].known = true;
    entries_[number].destroyed = 1;
    return entries_[number].accepted = told;
  }

  // What the last of so many tasks does, as it runs. A loop that is ended by its own tasks sleeps for
  // ever when a wake is lost; one that others end is woken by that.
  void after(std::size_t tasks, std::function<void()> what) {
    awaited_ = tasks;
    what_ = std::move(what);
  }

  // Done by somebody's task or call, as the loop: nobody else is.
  void as_the_loop() { engine::the().touch(&loops_own_, true); }

  std::size_t accepted() const { return count(&entry::accepted); }
  std::size_t ran() const { return count(&entry::ran); }

  // After the loop is gone.
  void check(bool all_ran = true) const {
    for (const entry& e : entries_) {
      must(e.known, "a post has not returned");
      must(!e.ran || e.accepted, "a task has run that was refused");
      must(!all_ran || e.ran || !e.accepted, "an accepted task was lost");
      must(e.destroyed == 1, e.destroyed == 0 ? "a closure was not destroyed" : "a closure was destroyed twice");
    }
    must(live_.empty(), "a closure still lives");
  }

  static void must(bool holds, const char* sentence) {
    if (!holds) engine::the().fail(sentence);
  }

 private:
  struct entry {
    unsigned who = 0;
    bool known = false;     // the post has returned
    bool accepted = false;
    bool ran = false;
    unsigned destroyed = 0;
  };

  std::size_t count(bool entry::*what) const {
    std::size_t n = 0;
    for (const entry& e : entries_) n += e.*what ? 1u : 0u;
    return n;
  }
  unsigned draw(unsigned who) {
    entries_.push_back({who, false, false, false, 0});
    return static_cast<unsigned>(entries_.size() - 1);
  }
  bool enter(unsigned number, hybridloop::post_result result) {
    entries_[number].known = true;
    return entries_[number].accepted = result == hybridloop::post_result::accepted;
  }

  void built(const void* at) {
    engine::the().touch(at, true);
    for (const void* other : live_) must(other != at, "two closures in one place");
    live_.push_back(at);
  }
  void destroyed(const void* at, unsigned number, bool live) {
    engine::the().touch(at, true);
    if (live) ++entries_[number].destroyed;
    for (std::size_t i = 0; i < live_.size(); ++i) {
      if (live_[i] != at) continue;
      live_[i] = live_.back();
      live_.pop_back();
      return;
    }
    engine::the().fail("a closure is destroyed that does not live");
  }
  void runs(unsigned number) {
    must(!running_, "two tasks at once");
    running_ = true;
    as_the_loop();
    must(!entries_[number].ran, "a task has run twice");
    entries_[number].ran = true;
    for (std::size_t later = number + 1; later < entries_.size(); ++later) {
      must(entries_[later].who != entries_[number].who || !entries_[later].ran,
           "a task has overtaken one of the same thread");
    }
    engine::the().breathe("task");
    running_ = false;
    if (awaited_ != 0 && --awaited_ == 0) what_();
  }

  std::vector<entry> entries_;
  std::vector<const void*> live_;
  bool running_ = false;
  std::size_t awaited_ = 0;
  std::function<void()> what_;
  char loops_own_ = 0;
};

}  // namespace explore
