#!/usr/bin/env bash
# Installs the build into a folder, moves that folder, and uses it as users do: pkg-config from C and
# C++, find_package from CMake, a program ported from NCCL by sed, README's example under launchers'
# variables, the tools, the man pages, libnccl.so.2. Usage: install_test.sh BUILD SOURCE CMAKE
set -euo pipefail
build=$1 source=$2 cmake=$3
here=$source/tests/install
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_LIBRARY_PATH DESTDIR
export PKG_CONFIG_PATH=

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
passed() { printf 'ok: %s\n' "$*"; }

"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log" || {
  cat "$work/install.log"
  fail "cmake --install"
}
mv "$work/first" "$work/moved"
prefix=$work/moved
pc=$(find "$prefix" -name comm.pc)
[[ -n $pc ]] || fail "no comm.pc was installed"
PKG_CONFIG_PATH=$(dirname "$pc")
libdir=$(cd "$(pkg-config --variable=libdir comm)" && pwd)
read -ra flags <<<"$(pkg-config --cflags --libs comm)"
run() { LD_LIBRARY_PATH=$libdir timeout 120 "$@"; }
strict=(-Wall -Wextra -Wpedantic -Werror -O1)

# The library.
soname=$(readelf -d "$libdir/libcomm.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $soname == libcomm.so.1 ]] || fail "the soname is $soname"
others=$(nm -D --defined-only --format=posix "$libdir/libcomm.so" | awk '{print $1}' | grep -v '^comm[A-Z]' || true)
[[ -z $others ]] || fail "libcomm.so exports more than the C API: $others"
sed -n 's/^COMM_API .*[ *]\(comm[A-Z][A-Za-z]*\)(.*/\1/p' "$prefix/include/comm.h" | sort >"$work/declared"
nm -D --defined-only --format=posix "$libdir/libcomm.so" | awk '{print $1}' | sort >"$work/exported"
diff "$work/declared" "$work/exported" || fail "comm.h's functions (<) and the exported ones (>) differ"
passed "libcomm.so.1 exports what comm.h declares and nothing else ($(wc -l <"$work/exported") functions)"

read -ra libraries <<<"$(pkg-config --libs comm)"
[[ ${libraries[*]} == "-L"*" -lcomm" ]] || fail "comm.pc asks users for more than -lcomm: ${libraries[*]}"

# The header alone, in every dialect that a user may have.
for dialect in "c -std=c11" "c -std=c17" "c++ -std=c++11" "c++ -std=c++20"; do
  read -ra how <<<"$dialect"
  printf '#include <comm.h>\ncommConfig_t config = COMM_CONFIG_INITIALIZER;\ncommRedOp_t op(void) { return commBxor; }\n' |
    cc -x "${how[@]}" "${strict[@]}" -fsyntax-only "-I$prefix/include" - || fail "comm.h as $dialect"
  printf '#include <comm/tuner.h>\ncommTunerCollInfo_t info;\n' |
    cc -x "${how[@]}" "${strict[@]}" -fsyntax-only "-I$prefix/include" - || fail "comm/tuner.h as $dialect"
  printf '#include <nccl.h>\nncclConfig_t config = NCCL_CONFIG_INITIALIZER;\n' |
    cc -x "${how[@]}" "${strict[@]}" -fsyntax-only "-I$prefix/include/comm/nccl" - || fail "our nccl.h as $dialect"
done
passed "comm.h, comm/tuner.h and our nccl.h compile alone as C11, C17, C++11 and C++20"

# A program through pkg-config.
cc -std=gnu11 "${strict[@]}" "$here/program.c" "${flags[@]}" -o "$work/by_pkg_config"
[[ $(run "$work/by_pkg_config") == ok ]] || fail "the program built with pkg-config"
passed "a C program built with pkg-config sums on one and on two ranks"

# The same through find_package, from a C-only project.
if ! { "$cmake" -S "$here/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$prefix" -DPROGRAM="$here/program.c" &&
  "$cmake" --build "$work/consumer"; } >"$work/consumer.log" 2>&1; then
  cat "$work/consumer.log"
  fail "the find_package project"
fi
[[ $(timeout 120 "$work/consumer/program") == ok ]] || fail "the program built with find_package"
passed "a C program built with find_package sums on one and on two ranks"

# A program written for NCCL, ported by the rule.
port() { sed -e s/ncclComm/comm/g -e s/nccl/comm/g -e s/NCCL_/COMM_/g "$1"; }
port "$here/nccl_program.c" | cc -x c -std=gnu11 "${strict[@]}" - "${flags[@]}" -o "$work/ported_c"
[[ $(run "$work/ported_c") == ok ]] || fail "the ported program, as C"
port "$here/nccl_program.c" | c++ -x c++ "${strict[@]}" - "${flags[@]}" -o "$work/ported_cc"
[[ $(run "$work/ported_cc") == ok ]] || fail "the ported program, as C++"
passed "an NCCL host program ported by sed runs, as C and as C++"

# The same program unported, on the installed libnccl.so.2, which finds libcomm.so.1 by itself.
nccl=$libdir/comm/nccl
cc -std=gnu11 "${strict[@]}" "-I$prefix/include/comm/nccl" "$here/nccl_program.c" "-L$nccl" -lnccl -o "$work/unported"
[[ $(LD_LIBRARY_PATH=$nccl timeout 120 "$work/unported") == ok ]] || fail "the NCCL program on the installed libnccl.so.2"
[[ $(LD_PRELOAD=$nccl/libnccl.so.2 timeout 120 "$work/unported") == ok ]] || fail "the NCCL program with LD_PRELOAD"
[[ -z $(find "$prefix" -name 'libnccl*' ! -path "$nccl/*") ]] || fail "a libnccl outside $nccl"
passed "the NCCL host program runs on the installed libnccl.so.2, linked with it and by LD_PRELOAD"

# README's example is the first C block of the page.
awk '/^```/ { if (inside) exit; inside = ($0 == "```c"); next } inside' "$source/README.md" >"$work/sum.c"
[[ -s $work/sum.c ]] || fail "README.md has no C example"
cc -std=c11 "${strict[@]}" "$work/sum.c" "${flags[@]}" -o "$work/sum"
[[ $(run "$work/sum") == "rank 0 of 1: 0 1 2 3" ]] || fail "README's example alone"
for rank in 0 1 2; do
  COMM_RANK=$rank COMM_NRANKS=3 COMM_ID="file://$work/rendezvous" COMM_SECRET=install-test \
    run "$work/sum" >"$work/sum.$rank" &
done
wait
for rank in 0 1 2; do
  [[ $(<"$work/sum.$rank") == "rank $rank of 3: 3 6 9 12" ]] || fail "README's example, rank $rank: $(<"$work/sum.$rank")"
done
passed "README's example runs alone and as three ranks"

# The tools find the library beside them, and each has its page.
for program in "$prefix"/bin/*; do
  name=$(basename "$program")
  page=$prefix/share/man/man1/$name.1
  [[ -f $page ]] || fail "no manual page for $name"
  if grep -q '^\.so ' "$page"; then page=$prefix/share/man/$(sed 's/^\.so //' "$page"); fi
  for flag in $("$program" --help | grep -o -- '--[a-z][a-z_-]*' | sort -u); do
    # Not through a pipe: grep -q ends at the first match, and the writer's SIGPIPE would count as a failure.
    grep -q -e "$flag" <<<"$(sed 's/\\-/-/g' "$page")" || fail "$name's manual page does not know $flag"
  done
  libraries=$(ldd "$program")
  grep -q 'not found' <<<"$libraries" && fail "$name lacks $(grep 'not found' <<<"$libraries")"
  grep -qv "$prefix" <<<"$(grep 'libcomm\.so' <<<"$libraries" || echo "$prefix")" && fail "$name uses another libcomm"
done
grep -qx '[0-9.]*' <<<"$("$prefix/bin/comm-info" --version)" || fail "the installed comm-info"
"$prefix/bin/all_reduce_perf" --procs 2 -b 8 -e 64K -f 8 -n 2 -w 1 >"$work/perf.log" 2>&1 || {
  cat "$work/perf.log"
  fail "the installed all_reduce_perf"
}
grep -q 'Out of bounds values *: *0' "$work/perf.log" || fail "all_reduce_perf: $(<"$work/perf.log")"
passed "the installed tools run and have manual pages"
