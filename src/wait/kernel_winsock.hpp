// wait/kernel_winsock.hpp - sockets as the fallback over WSAPoll calls them: Windows
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "base/clock.hpp"
#include "base/handle.hpp"
#include "wait/kernel_port.hpp"
#include "wait/windows_calls.hpp"

#if HYBRIDLOOP_OS(WINDOWS)
HYBRIDLOOP_OPEN
namespace detail {

// Nobody tells one socket from another that has its number by now.
struct file_identity {
  bool always_ready = false;  // a file that cannot be waited for

  friend constexpr bool operator==(const file_identity&, const file_identity&) noexcept { return true; }
};

#if !HYBRIDLOOP_NO_IO
struct winsock_calls : port_calls {
  struct poll_entry {
    std::uintptr_t fd;
    short events;
    short revents;
  };
  static constexpr int poll_in = 0x100;
  static constexpr int poll_out = 0x10;
  static constexpr int poll_priority = 0x200;
  static constexpr int poll_error = 0x1;
  static constexpr int poll_hangup = 0x2;
  static constexpr int poll_invalid = 0x4;
  static constexpr int poll_half_close = 0;

  static int poll(poll_entry* set, std::size_t count, nanos timeout) noexcept {
    constexpr nanos longest = nanos{24} * 3600 * 1000;
    const nanos up = timeout / 1000000 + (timeout % 1000000 != 0 ? 1 : 0);
    const int span = timeout == never ? -1 : static_cast<int>(up < longest ? up : longest);
    int got = answer(all().poll(set, static_cast<unsigned long>(count), span));
    for (std::size_t i = 0; i < count && got > 0; ++i) got -= keep_what_concerns(set[i]) ? 0 : 1;
    return got;
  }

  // Two ends of a connection over the loopback: Windows has no pipe that can be polled.
  static int pipe(native_handle (&ends)[2]) noexcept {
    if (!all().complete || all().started != 0) return -ENOTSUP;
    const std::uintptr_t listener = make();
    const std::uintptr_t client = make();
    address here{};
    std::uintptr_t server = none;
    if (listener != none && client != none && listen_at(listener, here) && all().connect(client, &here, sizeof here) == 0) {
      server = accept_own(listener, client);
    }
    if (listener != none) all().close_socket(listener);
    if (server != none && settle(server) && settle(client)) {
      ends[0] = static_cast<native_handle>(server);
      ends[1] = static_cast<native_handle>(client);
      return 0;
    }
    for (const std::uintptr_t each : {server, client}) {
      if (each != none) all().close_socket(each);
    }
    return -EMFILE;
  }

  static int write(native_handle socket, const void* bytes, std::size_t size) noexcept {
    return answer(all().send(static_cast<std::uintptr_t>(socket), bytes, static_cast<int>(size), 0));
  }
  static int read(native_handle socket, void* bytes, std::size_t size) noexcept {
    return answer(all().receive(static_cast<std::uintptr_t>(socket), bytes, static_cast<int>(size), 0));
  }
  static int close(native_handle socket) noexcept {
    return answer(all().close_socket(static_cast<std::uintptr_t>(socket)));
  }
  static int replace(native_handle, native_handle) noexcept { return -ENOTSUP; }

 private:
  // It tells of a half close what it tells of a hang-up, asked or not; that is nothing to who only writes. False:
  // nothing is left.
  static bool keep_what_concerns(poll_entry& e) noexcept {
    if (e.events != poll_out || (e.revents & poll_hangup) == 0 || (e.revents & poll_error) != 0) return true;
    e.revents = static_cast<short>(e.revents & ~poll_hangup);
    return e.revents != 0;
  }

  struct address {
    unsigned short family;
    unsigned char port[2];
    unsigned char host[4];
    unsigned char zero[8];

    bool is(const address& other) const noexcept { return port[0] == other.port[0] && port[1] == other.port[1]; }
  };

  static constexpr std::uintptr_t none = ~std::uintptr_t{0};
  static constexpr int would_block = 10035;

  static int answer(int result) noexcept {
    if (result >= 0) return result;
    return all().socket_error() == would_block ? -EAGAIN : -EIO;
  }

  static std::uintptr_t make() noexcept {
    constexpr int internet = 2, stream = 1;
    return all().socket(internet, stream, 0);
  }
  static bool listen_at(std::uintptr_t listener, address& here) noexcept {
    here.family = 2;
    here.host[0] = 127;
    here.host[3] = 1;
    int size = sizeof here;
    const functions& f = all();
    return f.bind(listener, &here, size) == 0 && f.listen(listener, 1) == 0 && f.name(listener, &here, &size) == 0;
  }
  // Somebody else may have been quicker to connect.
  static std::uintptr_t accept_own(std::uintptr_t listener, std::uintptr_t client) noexcept {
    address ours{}, theirs{};
    int size = sizeof ours;
    if (all().name(client, &ours, &size) != 0) return none;
    for (;;) {
      size = sizeof theirs;
      const std::uintptr_t got = all().accept(listener, &theirs, &size);
      if (got == none || theirs.is(ours)) return got;
      all().close_socket(got);
    }
  }
  // Neither blocks, nor is inherited, nor waits for more to send.
  static bool settle(std::uintptr_t socket) noexcept {
    constexpr long no_blocking = static_cast<long>(0x8004667E);
    constexpr unsigned long inherits = 1;
    unsigned long yes = 1;
    const functions& f = all();
    f.set_option(socket, 6, 1, &yes, sizeof yes);
    return f.control(socket, no_blocking, &yes) == 0 && f.set_information(reinterpret_cast<void*>(socket), inherits, 0) != 0;
  }

  struct functions {
    int(__stdcall* poll)(poll_entry*, unsigned long, int);
    std::uintptr_t(__stdcall* socket)(int, int, int);
    int(__stdcall* bind)(std::uintptr_t, const address*, int);
    int(__stdcall* listen)(std::uintptr_t, int);
    int(__stdcall* connect)(std::uintptr_t, const address*, int);
    std::uintptr_t(__stdcall* accept)(std::uintptr_t, address*, int*);
    int(__stdcall* name)(std::uintptr_t, address*, int*);
    int(__stdcall* send)(std::uintptr_t, const void*, int, int);
    int(__stdcall* receive)(std::uintptr_t, void*, int, int);
    int(__stdcall* close_socket)(std::uintptr_t);
    int(__stdcall* control)(std::uintptr_t, long, unsigned long*);
    int(__stdcall* set_option)(std::uintptr_t, int, int, const void*, int);
    int(__stdcall* socket_error)();
    int(__stdcall* set_information)(void*, unsigned long, unsigned long);
    bool complete;
    int started;
  };

  static const functions& all() noexcept {
    static const functions found = look_up();
    return found;
  }
  static functions look_up() noexcept {
    functions f{};
    const windows_library kernel("kernel32.dll"), sockets("ws2_32.dll");
    int(__stdcall * start)(unsigned short, void*) = nullptr;
    f.complete = sockets.find(start, "WSAStartup") && sockets.find(f.poll, "WSAPoll") && sockets.find(f.socket, "socket") &&
                 sockets.find(f.bind, "bind") && sockets.find(f.listen, "listen") && sockets.find(f.connect, "connect") &&
                 sockets.find(f.accept, "accept") && sockets.find(f.name, "getsockname") && sockets.find(f.send, "send") &&
                 sockets.find(f.receive, "recv") && sockets.find(f.close_socket, "closesocket") &&
                 sockets.find(f.control, "ioctlsocket") && sockets.find(f.set_option, "setsockopt") &&
                 sockets.find(f.socket_error, "WSAGetLastError") && kernel.find(f.set_information, "SetHandleInformation");
    alignas(std::uint64_t) unsigned char about[512];  // more than it writes
    f.started = f.complete ? start(0x202, about) : -1;
    return f;
  }
};
#else
struct winsock_calls : port_calls {};
#endif

}  // namespace detail
HYBRIDLOOP_CLOSE
#endif  // HYBRIDLOOP_OS(WINDOWS)
