// sys/event.h - as much of kqueue(2) as poller/kqueue.hpp calls, for Linux without libkqueue: see kqueue.cpp
#pragma once

#include <stdint.h>
#include <time.h>

struct kevent {
  uintptr_t ident;
  int16_t filter;
  uint16_t flags;
  uint32_t fflags;
  intptr_t data;
  void* udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-10)
#define EVFILT_EXCEPT (-15)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000

#define NOTE_OOB 0x00000002
#define NOTE_FFNOP 0x00000000
#define NOTE_TRIGGER 0x01000000

extern "C" {
int kqueue() noexcept;
int kevent(int queue, const struct kevent* changes, int count, struct kevent* out, int room,
           const struct timespec* timeout) noexcept;
}
