#!/bin/sh
# The header beside those of Windows.   sh tests/windows_test.sh [CXX] [src|.]
#
# It declares what it calls by itself, so Windows' own may come before it, behind it, or not at all.
set -u
repo=$(cd "$(dirname "$0")/.." && pwd)
cxx=${1-${CXX:-x86_64-w64-mingw32-g++-posix}} from=$repo/${2-src}
command -v "$cxx" > /dev/null || { echo "windows_test: skipped, $cxx is not here"; exit 0; }
root=$(mktemp -d); trap 'rm -rf "$root"' EXIT
cd "$root" || exit 1
passed=0 failed=0

strict='-Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast -Wundef -Werror'
compile() { $cxx -std=c++17 $strict -I"$from" "$@"; }

# A promise is a sentence and the command that keeps it.
promise() {
  sentence=$1; shift
  if (set -e; "$@") > log 2>&1; then echo "ok     $sentence"; passed=$((passed + 1))
  else echo "not ok $sentence"; sed 's/^/       | /' log | head -20; failed=$((failed + 1)); fi
}

# The library's functions are looked at all, not only those that are called.
cat > use.hpp <<'E'
template class hybridloop::basic_loop<hybridloop::default_traits>;
inline int answer() {
  hybridloop::loop l;
  int ran = 0;
  l.after(std::chrono::milliseconds(1), [&] { ++ran; });
  if (l.post([&] { ++ran; }) != hybridloop::post_result::accepted) return 1;
  l.run_until_idle();
  return ran == 2 ? 0 : 2;
}
E
file() { name=$1; shift; printf '%s\n' "$@" '#include "use.hpp"' "int of_$name();" "int of_$name() { return answer(); }" > "$name.cpp"; }
ours='#include <hybridloop.hpp>'
file alone "$ours"
file behind '#include <windows.h>' "$ours"
file before "$ours" '#include <windows.h>'
file sockets_behind '#include <winsock2.h>' '#include <ws2tcpip.h>' '#include <windows.h>' "$ours"
file sockets_before "$ours" '#include <winsock2.h>' '#include <windows.h>'
file old_sockets '#include <winsock.h>' "$ours"
file all_of_it '#include <windows.h>' '#include <objbase.h>' '#include <tlhelp32.h>' '#include <winternl.h>' "$ours"
file in_between '#include <windows.h>' "$ours" '#include <winternl.h>' '#include <process.h>'
programs='alone behind before sockets_behind sockets_before old_sockets all_of_it in_between'

nothing_of_windows() { compile -E alone.cpp > text; ! grep -E '"[^"]*/(windows|winsock2?|winbase|minwindef|winnt)\.h"' text; }
no_macro_of_windows() { compile -dM -E alone.cpp > text; ! grep -E '^#define (min|max|near|far|small|interface|ERROR|Yield)\b' text; }
one_program() {
  { for each in $programs; do echo "int of_$each();"; done; echo 'int main() { int bad = 0;'
    for each in $programs; do echo "bad += of_$each();"; done; echo 'return bad; }'; } > main.cpp
  compile -static main.cpp $(for each in $programs; do echo "$each.o"; done) -o all.exe
}

in_wine() { for each in "$@"; do sh "$repo/tests/wine.sh" "$root/$each"; done; }

# As the standard library is GNU's, it comes first, and then the compiler says it is Microsoft's.
microsoft() {
  gnu=$($cxx -print-file-name=include/c++)
  { grep -rhoE '^#include <[a-z_]+>' "$repo/src" | sort -u
    printf '%s\n' '#include <mutex>' '#include <intrin.h>' '#undef __GNUC__' '#undef __clang__' '#undef __x86_64__' \
      '#undef __MINGW32__' '#undef __MINGW64__' '#define _MSC_VER 1930' '#define _M_X64 100' "$ours" '#include "use.hpp"' \
      'template class hybridloop::basic_semaphore<hybridloop::sync::queue0>;' \
      'template class hybridloop::basic_semaphore<hybridloop::sync::queue1>;' \
      'template class hybridloop::basic_semaphore<hybridloop::sync::queue2>;' \
      'template class hybridloop::basic_semaphore<hybridloop::sync::queue3>;' \
      'int main() { return answer(); }'
  } > microsoft.cpp
  clang++ --target=x86_64-w64-mingw32 -fms-extensions -femulated-tls -D__GXX_TYPEINFO_EQUALITY_INLINE=0 -nostdlibinc -isystem "$gnu" \
    -isystem "$gnu/x86_64-w64-mingw32" -isystem "$gnu/backward" -isystem /usr/x86_64-w64-mingw32/include \
    -std=c++17 $strict -Wshadow-all -Wmicrosoft -I"$from" -c microsoft.cpp -o microsoft.o
  $cxx -static microsoft.o -o microsoft.exe
}

promise "the header includes nothing of Windows" nothing_of_windows
promise "and leaves none of its macros behind" no_macro_of_windows
for each in $programs; do promise "compiles: $each" compile -Wa,-mbig-obj -c $each.cpp; done
promise "min and max may be macros, and the character set Unicode" compile -DUNICODE -D_UNICODE -UNOMINMAX -fsyntax-only behind.cpp
promise "STRICT may be off" compile -DNO_STRICT -fsyntax-only before.cpp
promise "lean headers, no exceptions, C++20" compile -std=c++20 -DWIN32_LEAN_AND_MEAN -fno-exceptions -fno-rtti -fsyntax-only behind.cpp
promise "all of them link into one program, which asks for no library but Windows' own" one_program
command -v clang++ > /dev/null && promise "what only Microsoft's compiler is shown compiles too, by clang in its place" microsoft
command -v wine > /dev/null && promise "and they run, in Wine" in_wine all.exe $([ ! -f microsoft.exe ] || echo microsoft.exe)

echo "$passed passed, $failed failed"
[ $failed = 0 ]
