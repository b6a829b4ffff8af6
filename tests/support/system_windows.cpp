// system_windows.cpp - handles, CPU time and sockets, by the headers of Windows
#include "support/system_windows.hpp"

#include <cstdint>
#include <cstdlib>

#include <winsock2.h>
#include <windows.h>
#include <tlhelp32.h>

namespace support {

static SOCKET socket_of(descriptor d) { return static_cast<SOCKET>(d); }

void never_block(descriptor d) {
  unsigned long yes = 1;
  if (::ioctlsocket(socket_of(d), static_cast<long>(FIONBIO), &yes) != 0) std::abort();
}
void close_socket(descriptor d) { ::closesocket(socket_of(d)); }

descriptor open_file() {
  char name[MAX_PATH];
  ::GetModuleFileNameA(nullptr, name, sizeof name);
  void* const file = ::CreateFileA(name, GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, 0, nullptr);
  if (file == INVALID_HANDLE_VALUE) std::abort();
  return reinterpret_cast<descriptor>(file);
}
void close_file(descriptor d) { ::CloseHandle(reinterpret_cast<HANDLE>(d)); }

bool becomes_readable(descriptor handle, int milliseconds) {
  return ::WaitForSingleObject(reinterpret_cast<HANDLE>(handle), static_cast<DWORD>(milliseconds)) == WAIT_OBJECT_0;
}

bool aborts(const std::function<void()>& f) {
  const auto before = hybridloop::set_failure_handler([](const char*) { ::ExitThread(77); });
  const auto run = [](void* what) -> DWORD {
    (*static_cast<const std::function<void()>*>(what))();
    return 0;
  };
  const HANDLE victim = ::CreateThread(nullptr, 0, run, const_cast<std::function<void()>*>(&f), 0, nullptr);
  if (victim == nullptr) std::abort();
  ::WaitForSingleObject(victim, INFINITE);
  DWORD how = 0;
  ::GetExitCodeThread(victim, &how);
  ::CloseHandle(victim);
  hybridloop::set_failure_handler(before);
  return how == 77;
}

// The first one starts the sockets of the process.
descriptor make_socket() {
  static const int started = [] {
    WSADATA about;
    return ::WSAStartup(0x202, &about);
  }();
  const SOCKET made = started == 0 ? ::socket(AF_INET, SOCK_STREAM, 0) : INVALID_SOCKET;
  if (made == INVALID_SOCKET) std::abort();
  return static_cast<descriptor>(made);
}

// Over the loopback: Windows has no socketpair().
void connect_two(descriptor (&ends)[2]) {
  const SOCKET listener = socket_of(make_socket());
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int size = sizeof at;
  auto* const address = reinterpret_cast<sockaddr*>(&at);
  if (::bind(listener, address, size) != 0 || ::listen(listener, 1) != 0) std::abort();
  if (::getsockname(listener, address, &size) != 0) std::abort();
  ends[1] = make_socket();
  if (::connect(socket_of(ends[1]), address, size) != 0) std::abort();
  ends[0] = static_cast<descriptor>(::accept(listener, nullptr, nullptr));
  if (ends[0] == -1) std::abort();
  ::closesocket(listener);
  const BOOL at_once = TRUE;
  for (const descriptor end : ends) {
    never_block(end);
    ::setsockopt(socket_of(end), IPPROTO_TCP, TCP_NODELAY, reinterpret_cast<const char*>(&at_once), sizeof at_once);
  }
}

std::size_t send_bytes(descriptor d, const void* bytes, std::size_t size) {
  const int sent = ::send(socket_of(d), static_cast<const char*>(bytes), static_cast<int>(size), 0);
  return sent > 0 ? static_cast<std::size_t>(sent) : 0;
}
std::size_t receive_bytes(descriptor d, void* bytes, std::size_t size) {
  const int got = ::recv(socket_of(d), static_cast<char*>(bytes), static_cast<int>(size), 0);
  return got > 0 ? static_cast<std::size_t>(got) : 0;
}

// The first socket of a process brings handles that stay.
descriptor_list open_descriptors() {
  static const bool started = (close_socket(make_socket()), true);
  if (!started) std::abort();
  descriptor_list found;
  for (std::uintptr_t number = 4; number < 4096; number += 4) {
    DWORD flags = 0;
    if (::GetHandleInformation(reinterpret_cast<HANDLE>(number), &flags) != 0) found.push_back(std::to_string(number));
  }
  return found;
}

static std::chrono::microseconds sum_of(const FILETIME& kernel, const FILETIME& user) {
  const auto of = [](const FILETIME& t) {
    return std::chrono::microseconds((std::int64_t{t.dwHighDateTime} * 0x100000000 + t.dwLowDateTime) / 10);
  };
  return of(kernel) + of(user);
}
usage thread_usage() {
  FILETIME begun{}, ended{}, kernel{}, user{};
  ::GetThreadTimes(::GetCurrentThread(), &begun, &ended, &kernel, &user);
  return {sum_of(kernel, user), 0};
}
void keep_on_first_cpu() {
  if (::SetThreadAffinityMask(::GetCurrentThread(), 1) == 0) std::abort();
}
std::chrono::microseconds process_cpu() {
  FILETIME begun{}, ended{}, kernel{}, user{};
  ::GetProcessTimes(::GetCurrentProcess(), &begun, &ended, &kernel, &user);
  return sum_of(kernel, user);
}


static HANDLE handle_of(descriptor d) { return reinterpret_cast<HANDLE>(d); }

bool is_readable(descriptor signalled) { return ::WaitForSingleObject(handle_of(signalled), 0) == WAIT_OBJECT_0; }
void send_no_more(descriptor d) {
  if (::shutdown(socket_of(d), SD_SEND) != 0) std::abort();
}
void send_urgent(descriptor d) {
  if (::send(socket_of(d), "!", 1, MSG_OOB) != 1) std::abort();
}
void close_by_reset(descriptor d) {
  const linger at_once{1, 0};
  ::setsockopt(socket_of(d), SOL_SOCKET, SO_LINGER, reinterpret_cast<const char*>(&at_once), sizeof at_once);
  ::closesocket(socket_of(d));
}
descriptor duplicate(descriptor socket) {
  HANDLE made = nullptr;
  const HANDLE here = ::GetCurrentProcess();
  if (::DuplicateHandle(here, handle_of(socket), here, &made, 0, FALSE, DUPLICATE_SAME_ACCESS) == 0) std::abort();
  return reinterpret_cast<descriptor>(made);
}
std::vector<descriptor> always_ready_files() {
  char path[MAX_PATH];
  ::GetModuleFileNameA(nullptr, path, MAX_PATH);
  const HANDLE file = ::CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, 0, nullptr);
  return {reinterpret_cast<descriptor>(file)};
}
descriptor make_event(bool stays) { return reinterpret_cast<descriptor>(::CreateEventA(nullptr, stays, FALSE, nullptr)); }
void set_event(descriptor d) { ::SetEvent(handle_of(d)); }
void reset_event(descriptor d) { ::ResetEvent(handle_of(d)); }

std::vector<std::string> thread_ids() {
  std::vector<std::string> found;
  const HANDLE all = ::CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
  THREADENTRY32 entry{};
  entry.dwSize = sizeof entry;
  for (BOOL more = ::Thread32First(all, &entry); more; more = ::Thread32Next(all, &entry)) {
    if (entry.th32OwnerProcessID == ::GetCurrentProcessId()) found.push_back(std::to_string(entry.th32ThreadID));
  }
  ::CloseHandle(all);
  return found;
}

}  // namespace support
