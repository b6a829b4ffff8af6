# hybridloop
#
#   make              build the tests against src/ and run them; installs doctest if it is missing
#   make demo         a tour of the library, from the joined header
#   make examples     build and run every example
#   make bench        build and run the benches, with the rivals that are here; ARGS="--json --only timers"
#   make benches      only build them
#   make bench-bars   how a run stands against its bars       RUN=bench/results/NAME.json, or the newest
#   make bench-plot   its plots, by gnuplot                   make bench-save   a run to keep
#   make bench-table  all of it, as Markdown
#   make cpus         the tests on aarch64, armhf, riscv64, s390x and i386; CXX=clang++ takes half the time
#   make check-os     compiled and linked for macOS, the BSDs and Windows on ARM, and run on musl; OS=x86_64-freebsd is one
#   make foreign      the loop inside GLib's and libuv's, those of them that are here
#   make model        the protocols' models in tests/model, and the mutants that spin must reject
#   make explore      interleavings of the real code, and faults that they must catch; see tests/explore
#   make soak         random programs of many threads, each task accounted for; ARGS="--seconds 3600 --seed 1"
#   make faults       refused system calls and allocations, forks, broken contracts: a part of the tests
#   make memcheck     the tests in valgrind, a tenth of the stress
#   make coverage     lines and branches of src/ that no test reaches: named in tests/uncovered.txt, or a failure
#   make fuzz         the same from bytes, by clang's libFuzzer
#
#   make check        all that a change must pass: check-join, and the tests in seven ways
#   make check-join   the part of it that takes seconds: joined file, macros, edges, conditionals
#   make join         write hybridloop.hpp from src/         make split   carry edits of it back
#   make format       clang-format, for all but the joined file
#   make clean        remove build/
#
#   CXX=clang++       a compiler, with what it needs: CXX="g++-12 -m32"
#   CPU=s390x         one of these CPUs: its cross compiler, or clang's target, and the tests in qemu
#   SYSTEM=windows    by MinGW-w64, or clang++ with its headers, and the tests in Wine (g++-mingw-w64-x86-64-posix, wine64; lld)
#   STD=c++20         the language
#   OPT=-O2           the optimizer: -O0 for the tests, which are long to compile; benches and examples have -O2
#   SAN=thread        a sanitizer: thread, or address,undefined
#   EXC=0             no exceptions, no RTTI
#   POLLER=poll       another poller than the system's best; POLLER=kqueue takes libkqueue, or tests/kqueue
#   PARKER=condvar    another way to sleep than the system's best
#   HEADER=joined     the joined header instead of src/
#   TEST_SCALE=0.1    a tenth of the stress; the tests read it from the environment
#   FILES="ring loop" some of the tests, by their stems
#   ARGS=...          for the program that is run: ARGS='-tc="*wakes*"'
#
# Each combination has a folder of its own in build/, so flags never mix and nothing is stale.

CPU    :=
cpus   := aarch64 armhf riscv64 s390x i386
triple := $(patsubst armhf-%,arm-%eabihf,$(CPU:%=%-linux-gnu))
ifneq ($(filter-out $(cpus),$(CPU)),)
$(error CPU is one of $(cpus), not $(CPU))
endif

SYSTEM :=
ifneq ($(filter-out windows,$(SYSTEM)),)
$(error SYSTEM is windows or this one, not $(SYSTEM))
endif

# An emulated CPU is slow; it is there for its bytes, words and system calls.
ifneq ($(CPU),)
TEST_SCALE ?= 0.05
export TEST_SCALE
endif

ifeq ($(origin CXX)$(SYSTEM),defaultwindows)
CXX    := x86_64-w64-mingw32-g++-posix
else ifeq ($(origin CXX),default)
CXX    := $(if $(filter-out i386,$(CPU)),$(triple)-)g++
endif
STD    := c++17
OPT    :=
SAN    :=
EXC    := 1
POLLER :=
PARKER :=
HEADER := src
FILES  :=
ARGS   :=

# As many compilers as cpus; `make -j1` still means one. Several verbs at once go one by one:
# `make join test` means what it says. No --output-sync, which would hold back the progress lines.
ifeq ($(MAKELEVEL)$(word 2,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
endif
MAKEFLAGS += --no-builtin-rules --no-print-directory

empty  :=
comma  := ,
name   := $(notdir $(CXX))-$(STD)$(CPU:%=-%)$(SYSTEM:%=-%)$(OPT)$(SAN:%=-%)$(COVERAGE:%=-coverage)$(if $(filter 0,$(EXC)),-noexc)$(POLLER:%=-%)$(PARKER:%=-%)
name   := $(subst $(comma),+,$(subst $(empty) ,_,$(name)))
dir    := build/$(name)-$(HEADER)
joined := build/$(name)-joined

include.src    := -Isrc
include.joined := -I.
include        := $(or $(include.$(HEADER)),$(error HEADER is src or joined, not $(HEADER)))

# Homebrew on Apple silicon installs where no compiler looks.
brew     := $(wildcard /opt/homebrew)
finds    := $(brew:%=-isystem %/include)

# A cross compiler does not look where doctest is. i386 runs on this machine itself, by g++'s multilib,
# which does not look where <asm/> is.
ifeq ($(CPU),i386)
finds    += -m32 -idirafter /usr/include/x86_64-linux-gnu
else ifneq ($(CPU),)
finds    += $(if $(findstring clang,$(CXX)),--target=$(triple)) -idirafter /usr/include
# GLib's own allocator, in which qemu 7.2 has its translations, would be locked for ever in the child of a fork.
run      := G_SLICE=always-malloc qemu-$(CPU:armhf=arm) -L /usr/$(triple)
endif

# Of this machine's headers, which are for another system, doctest alone. clang takes half of g++'s time, and MinGW's
# headers and libraries; its own thread_local and inline type_info are not what those libraries were built with.
linker   := $(CXX)
ifneq ($(SYSTEM),)
finds    += -isystem build/$(SYSTEM)/include
endif
ifneq ($(and $(SYSTEM),$(findstring clang,$(CXX))),)
posix    := x86_64-w64-mingw32-g++-posix
mingw    := $(shell $(posix) -print-file-name=include/c++)
# lld, where it is, takes one second instead of 90.
lld      := $(CXX) --target=x86_64-w64-mingw32 -pthread -fuse-ld=lld -L$(dir $(shell $(posix) -print-libgcc-file-name))
linker   := $(if $(shell command -v ld.lld),$(lld),$(posix))
finds    += --target=x86_64-w64-mingw32 -femulated-tls -D__GXX_TYPEINFO_EQUALITY_INLINE=0 -nostdlibinc \
            $(patsubst %,-isystem %,$(mingw) $(mingw)/x86_64-w64-mingw32 $(mingw)/backward /usr/x86_64-w64-mingw32/include)
endif

warnings := -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast \
            -Wundef -Werror
flags    := -std=$(STD) -pthread $(finds)
speed    := $(or $(OPT),-O0) $(if $(SAN),-g1,-g0)
fast     := $(if $(SAN),-O1,-O2) -g
ifneq ($(SAN),)
flags    += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
# Its code for this check does not assemble where a template has a coroutine in it.
flags    += $(if $(findstring clang,$(CXX)),$(if $(findstring undefined,$(SAN)),-fno-sanitize=function))
endif
ifneq ($(COVERAGE),)
flags    += -fprofile-instr-generate -fcoverage-mapping -fprofile-update=atomic -mllvm -runtime-counter-relocation
endif
ifeq ($(EXC),0)
flags    += -fno-exceptions -fno-rtti -DDOCTEST_CONFIG_NO_EXCEPTIONS_BUT_WITH_ALL_ASSERTS
endif
flags    += $(POLLER:%=-DHYBRIDLOOP_POLLER=%) $(PARKER:%=-DHYBRIDLOOP_PARKER=%)
# kqueue on Linux: libkqueue where it is, or a small one of our own on top of epoll.
ifeq ($(POLLER),kqueue)
libkqueue := $(wildcard /usr/include/kqueue)
flags    += -DTEST_KQUEUE $(if $(libkqueue),-isystem $(libkqueue),-isystem tests/kqueue)
libraries := $(libkqueue:%=-lkqueue)
kqueue    := $(if $(libkqueue),,kqueue/kqueue)
endif
# Objects of many templates outgrow the format's 65,535 sections, and a program is to run without MinGW's libraries.
ifeq ($(SYSTEM),windows)
flags    += -Wa,-mbig-obj
libraries := -static -lws2_32
run      := sh tests/wine.sh
exe      := .exe
endif
compile   = $(CXX) $(flags) $(warnings) -MMD -MP -MF $@.d -MT $@

# Left out on Windows: fork, which it has not; what counts and refuses by the calls of one C library (memory)
# or of one kernel (kernel, fault); what reads /proc (idle, lifetime).
without.windows := fork memory kernel fault idle lifetime
# Nor does the stand-in of kqueue in a fork what kqueues do: its descriptors are copied.
without.kqueue  := fork
without  := $(without.$(SYSTEM)) $(without.$(POLLER))
all      := $(filter-out $(without:%=tests/%_test.cpp),$(sort $(wildcard tests/*_test.cpp)))
chosen   := $(if $(FILES),$(FILES:%=tests/%_test.cpp),$(all))
helpers  := $(if $(SYSTEM),tests/support/system_$(SYSTEM).cpp)
objects  := $(patsubst tests/%.cpp,$(dir)/%.o,tests/main.cpp $(helpers) $(chosen)) $(kqueue:%=$(dir)/%.o)
tests    := $(dir)/tests$(subst $(empty) ,,$(FILES:%=-%))$(exe)
benches  := $(patsubst %.cpp,$(dir)/%,$(sort $(wildcard bench/*.cpp)))
hosts    := $(patsubst %_test.cpp,%,$(sort $(wildcard tests/foreign/*_test.cpp)))
examples := $(patsubst %.cpp,$(joined)/%,$(sort $(wildcard examples/*.cpp)))

.DELETE_ON_ERROR:
.PHONY: test check-os cpus $(cpus:%=cpu-%) model explore soak fuzz coverage faults memcheck demo examples benches bench bench-save bench-bars bench-plot bench-table foreign check \
        check-join join split format clean help rust force

test: $(tests)
	$(run) $< $(ARGS)

# Some at a time, so that one compiles while another's tests run; each is told as a whole.
cpus: $(cpus:%=cpu-%)

$(cpus:%=cpu-%): cpu-%:
	@mkdir -p build
	@$(MAKE) test CPU=$* > build/$@.log 2>&1; status=$$?; echo "== $*"; cat build/$@.log; exit $$status

soak: $(dir)/soak
	$< $(ARGS)

# libFuzzer comes with clang. What it found stays in build/.
fuzz: build/fuzz
	@mkdir -p build/corpus
	cd build && ./fuzz -max_total_time=60 -timeout=20 $(ARGS) corpus ../tests/soak/corpus

# What no test reaches is named in tests/uncovered.txt, with its reason. Counters live in a mapped file, so
# that children which abort count too; this takes clang, and its llvm-cov.
coverage:
	@$(MAKE) CXX=clang++ STD=c++20 COVERAGE=1 build/coverage-report

build/coverage-report: $(tests) force
	@rm -rf build/coverage && mkdir -p build/coverage
	LLVM_PROFILE_FILE=$(CURDIR)/build/coverage/tests%c.profraw TEST_SCALE=0.1 $<
	@sh tests/coverage.sh $< build/coverage

# Refused system calls and allocations, forks, broken contracts.
faults: $(tests)
	$(run) $< '-ts=faults,exhausted memory,fork,exception,contract,poller' $(ARGS)

memcheck: $(tests)
	@TEST_SCALE=$${TEST_SCALE:-0.1} sh tests/memcheck.sh $< $(dir)/memcheck.log $(ARGS)

model:
	@sh tests/model/check.sh build/model

demo: $(joined)/examples/tour
	@$< $(ARGS)

examples: $(examples)
	@for e in $^; do $$e || { echo "failed $${e##*/}"; exit 1; }; echo "ran $${e##*/}"; done

benches: $(benches) rust

bench: $(benches) rust
	@sh bench/run.sh $(dir)/bench $(ARGS)

# Named after commit, compiler, cpus and day.
bench-save: $(benches) rust
	@sh bench/save.sh $(dir)/bench $(ARGS)

RUN = $(firstword $(shell ls -t bench/results/*.json 2>/dev/null))

bench-bars:
	@sh bench/bars.sh '$(RUN)'

bench-plot:
	@sh bench/plot.sh '$(RUN)'
	@sh bench/plot-threads.sh '$(RUN)'

bench-table:
	@sh bench/table.sh '$(RUN)'

# A host is tested where pkg-config finds its package.
package.glib  := glib-2.0
package.libuv := libuv

# Systems that are not here: compiled and linked by zig; OS=aarch64-macos is one of them.
check-os:
	@sh tests/os_check.sh $(OS)

foreign: $(hosts:tests/%=$(dir)/%)
	@for t in $^; do [ ! -x $$t ] || $$t $(ARGS) || exit 1; done

# Without ARGS: all scenarios, then all mutants.
explore: $(dir)/explore/explore
	@sh tests/explore/run.sh $(dir)/explore '$(CXX) -std=$(STD) $(finds)' $(ARGS)

scenes = parking fences spilling blocks watching ending lanes lending hosting looking timing telling permits visiting combining cells gathering leaving
engine = memory engine operations search session main
explore_objects = $(engine:%=$(dir)/explore/engine/%.o) $(scenes:%=$(dir)/explore/%.o)

$(dir)/explore/explore: $(explore_objects)
	@echo "LD  $@"
	@$(CXX) $(flags) $^ -o $@

$(dir)/explore/engine/%.o $(dir)/explore/%.o: tests/explore/%.cpp Makefile
	@echo "CXX $<"
	@mkdir -p $(@D)
	@$(compile) -g0 -O1 $(include) -Itests -c $< -o $@

$(tests): $(objects)
	@echo "LD  $@"
	@$(linker) $(if $(SYSTEM),,$(flags)) $^ -o $@ $(libraries)

$(dir)/%.o: tests/%.cpp Makefile | $(dir)/doctest
	@echo "CXX $<"
	@mkdir -p $(@D)
	@$(compile) $(speed) $(include) -Itests -c $< -o $@

$(dir)/soak: tests/soak/soak.cpp Makefile
	@echo "CXX $<"
	@mkdir -p $(@D)
	@$(compile) $(fast) $(include) -Itests $< -o $@

build/fuzz: tests/soak/fuzz.cpp Makefile
	@echo "CXX $<"
	@mkdir -p $(@D)
	@clang++ -std=c++17 -O1 -g -pthread $(warnings) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -MMD -MP -MF $@.d -MT $@ -Isrc -Itests $< -o $@

$(joined)/examples/%: examples/%.cpp Makefile
	@echo "CXX $<"
	@mkdir -p $(@D)
	@$(compile) $(fast) -I. $< -o $@

# What is built is said on stderr: stdout is the report's.
bench_facts = '-DBENCH_FLAGS="$(strip $(fast) $(flags)) -DNDEBUG"' '-DBENCH_CXX="$(CXX)"' '-DBENCH_INCLUDE="-I. $(finds)"'

# std::counting_semaphore and coroutines take part where the compiler knows them.
bench_std.permits = $(if $(filter c++17,$(STD)),-std=c++2a)

$(dir)/bench/%: bench/%.cpp $(dir)/rivals Makefile
	@echo "CXX $<" >&2
	@mkdir -p $(@D)
	@$(compile) $(bench_std.$*) $(fast) -DNDEBUG $(bench_facts) $(include) $< -o $@ $$(cat $(dir)/rivals) $(brew:%=-L%/lib)

$(dir)/foreign/%: tests/foreign/%_test.cpp $(dir)/main.o Makefile
	@mkdir -p $(@D)
	@if pkg-config --exists $(package.$*) 2>/dev/null; then echo "CXX $<"; \
	  $(compile) $(speed) $(include) -Itests $< $(dir)/main.o -o $@ \
	    $$(pkg-config --cflags --libs $(package.$*) | sed 's/-I/-isystem /g'); \
	else echo "foreign: $(package.$*) is not here, left out"; fi

$(dir)/doctest:
	@mkdir -p $(@D)
	@sh packaging/doctest.sh '$(if $(SYSTEM),c++,$(CXX) $(finds))' $(SYSTEM:%=build/%/include)
	@touch $@

# Left out where cargo or the crates are not here.
rust: $(dir)/rivals
	@sh packaging/rust.sh $(dir)/bench >&2

# Looked for each time, but a bench is built anew only when a rival has come or gone.
$(dir)/rivals: force
	@mkdir -p $(@D)
	@sh packaging/rivals.sh '$(CXX) $(finds)' > $@.now
	@cmp -s $@.now $@ || cp $@.now $@

-include $(wildcard build/*.d $(dir)/*.d $(dir)/explore/*.d $(dir)/explore/engine/*.d $(dir)/bench/*.d \
           $(dir)/foreign/*.d $(joined)/examples/*.d)

# One way of the suite. Flags differ from leg to leg, so each is a make of its own.
leg = +@if command -v $(1) >/dev/null; then echo "== $(1) $(2)"; $(MAKE) test CXX=$(1) $(2); \
      else echo "== $(1) $(2): skipped, $(1) is not here"; fi

check: check-join
	@sh tests/join_test.sh
	$(call leg,g++,STD=c++17 HEADER=src)
	$(call leg,g++,STD=c++20 HEADER=joined)
	$(call leg,clang++,STD=c++17 HEADER=joined)
	$(call leg,clang++,STD=c++20 HEADER=src)
	$(call leg,g++,EXC=0 HEADER=joined)
	$(call leg,g++,POLLER=poll)
	$(call leg,g++,PARKER=condvar)

check-join:
	@sh packaging/join.sh check
	@for cxx in g++ clang++; do \
	  if command -v $$cxx >/dev/null; then sh packaging/check-macros.sh $$cxx || exit 1; fi; done
	@sh packaging/check-edges.sh
	@sh packaging/check-ifs.sh
	@sh packaging/check-readme.sh

join split:
	@sh packaging/join.sh $@

format:
	@command -v clang-format >/dev/null || { echo "clang-format is not here; install it"; exit 1; }
	@find $(wildcard src tests bench examples) -name '*.hpp' -o -name '*.cpp' | xargs clang-format -i

clean:
	rm -rf build

help:
	@awk '!/^#/ { exit } { sub(/^# ?/, ""); print }' $(firstword $(MAKEFILE_LIST))
