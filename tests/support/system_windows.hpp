// system_windows.hpp - handles, CPU time and sockets, as Windows has them
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <hybridloop.hpp>

// Its headers would bring their macros, so what asks it is in system_windows.cpp.
namespace support {

using descriptor = hybridloop::native_handle;

inline void keep_to_ourselves(descriptor) {}  // there are no children to inherit it
void never_block(descriptor d);

descriptor make_socket();
void connect_two(descriptor (&ends)[2]);
void close_socket(descriptor d);

// How many; 0 where there is none, or no room.
std::size_t send_bytes(descriptor d, const void* bytes, std::size_t size);
std::size_t receive_bytes(descriptor d, void* bytes, std::size_t size);

// All handles of the process, as far as a test makes any.
std::vector<std::string> open_descriptors();

struct usage {
  std::chrono::microseconds cpu{0};
  long switches = 0;  // which nobody tells
};
usage thread_usage();
std::chrono::microseconds process_cpu();


// ---- What tests of watches and pollers ask ----

// A closed end is a half close then.
inline constexpr bool pairs_are_tcp = true;

std::vector<std::string> thread_ids();

// Until a packet has come that says what a socket became. Wine has another process for that.
inline constexpr std::int64_t readiness_takes = 200000000;

bool is_readable(descriptor signalled);
void send_no_more(descriptor d);
void send_urgent(descriptor d);
void send_nothing_more_at_all(descriptor d);  // resets the connection
descriptor duplicate(descriptor socket);
std::vector<descriptor> always_ready_files();
inline descriptor always_ready_file() { return always_ready_files().front(); }
void close_file(descriptor d);
descriptor make_event(bool stays);
void set_event(descriptor d);
void reset_event(descriptor d);

}  // namespace support
