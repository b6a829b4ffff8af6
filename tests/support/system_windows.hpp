// system_windows.hpp - handles, CPU time and sockets, as Windows has them
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <hybridloop.hpp>

// Its headers would bring their macros, so what asks it is in system_windows.cpp.
namespace support {

using descriptor = hybridloop::native_handle;

inline void keep_to_ourselves(descriptor) {}  // there are no children to inherit it
void never_block(descriptor d);

// A file that is always ready.
descriptor open_file();
void close_file(descriptor d);

// A handle for a foreign loop: whether it is signalled within so many milliseconds; -1 waits for ever.
bool becomes_readable(descriptor handle, int milliseconds);

// Whether f runs into a broken contract, or whatever else ends a program with a sentence. Here it ends a
// thread, with all that f had made.
bool aborts(const std::function<void()>& f);

descriptor make_socket();
void connect_two(descriptor (&ends)[2]);
void close_socket(descriptor d);

// How many; 0 where there is none, or no room.
std::size_t send_bytes(descriptor d, const void* bytes, std::size_t size);
std::size_t receive_bytes(descriptor d, void* bytes, std::size_t size);

// All handles of the process, as far as a test makes any. The system's pool of threads gives its own back some seconds
// after it was used, so of two lists the second may have more.
struct descriptor_list : std::vector<std::string> {
  friend bool operator==(const descriptor_list& now, const descriptor_list& before) {
    return std::all_of(now.begin(), now.end(), [&](const std::string& each) {
      return std::find(before.begin(), before.end(), each) != before.end();
    });
  }
};
descriptor_list open_descriptors();

struct usage {
  std::chrono::microseconds cpu{0};
  long switches = 0;  // which nobody tells
};
usage thread_usage();
void keep_on_first_cpu();  // this thread
std::chrono::microseconds process_cpu();


// ---- What tests of watches and pollers ask ----

// A closed end is a half close then.
inline constexpr bool pairs_are_tcp = true;

std::vector<std::string> thread_ids();

// How often a sleep returns that nobody ended. In Wine a thread finds the alert that was left for one that had its number
// before, once: so the first WaitOnAddress of a thread may return, as its manual allows any to.
inline constexpr int early_returns = 1;

// Until a packet has come that says what a socket became. Wine has another process for that.
inline constexpr std::int64_t readiness_takes = 200000000;

bool is_readable(descriptor signalled);
void send_no_more(descriptor d);
void send_urgent(descriptor d);
void close_by_reset(descriptor d);
descriptor duplicate(descriptor socket);
std::vector<descriptor> always_ready_files();
descriptor make_event(bool stays);
void set_event(descriptor d);
void reset_event(descriptor d);

}  // namespace support
