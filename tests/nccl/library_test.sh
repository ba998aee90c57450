#!/usr/bin/env bash
# libnccl.so.2 of the build as a file: its names, and programs that were linked against another NCCL.
# Usage: library_test.sh BUILD SOURCE [NVIDIA'S INCLUDE FOLDER, LIBRARY]
set -euo pipefail
build=$1 source=$2 nvidia_include=${3:-} nvidia_library=${4:-}
library=$build/lib/libnccl.so.2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset LD_LIBRARY_PATH LD_PRELOAD

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}
passed() { printf 'ok: %s\n' "$*"; }
skipped() { printf 'nccl: skipped: %s\n' "$*"; }

soname() { readelf -d "$1" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p'; }
[[ $(soname "$library") == libnccl.so.2 ]] || fail "the soname is $(soname "$library")"

# "W name" and "T name", sorted; a version would show as name@@VERSION.
exported() { nm -D --defined-only "$1" | awk '{ print $2, $3 }' | sort -k2; }
{
  while read -r name; do printf 'W %s\nT p%s\n' "$name" "$name"; done <"$source/tests/nccl/names.txt"
  echo T ncclResetDebugInitInternal
} | sort -k2 >"$work/wanted"
(($(wc -l <"$work/wanted") == 105)) || fail "names.txt has not 52 names"
exported "$library" >"$work/exported"
diff "$work/wanted" "$work/exported" || fail "NCCL's names (<) and the exported ones (>) differ"
passed "it exports NCCL's 105 names, 52 weak with strong twins, and nothing else"
if [[ -n $nvidia_library ]]; then
  diff <(exported "$nvidia_library") "$work/exported" || fail "NVIDIA's names (<) and ours (>) differ"
  passed "NVIDIA's library exports the same"
else
  skipped "comparison with NVIDIA's library: there is no libnccl.so 2.28.9 on this machine"
fi

# A profiler defines one weak name and goes on with its twin.
cat >"$work/profiler.c" <<'END'
#include <nccl.h>
#include <stdio.h>
ncclResult_t ncclGetVersion(int* version) { return puts("seen"), pncclGetVersion(version); }
END
cc -shared -fPIC "-I$source/bindings/nccl" "$work/profiler.c" -o "$work/profiler.so"
program=$source/tests/install/nccl_program.c
strict=(-std=gnu11 -Wall -Wextra -Werror -O1)
cc "${strict[@]}" "-I$source/bindings/nccl" "$program" "-L$build/lib" -lnccl -o "$work/ours"
[[ $(LD_LIBRARY_PATH=$build/lib timeout 120 "$work/ours") == ok ]] || fail "the program linked with -lnccl"
passed "an NCCL program compiled with our nccl.h and linked with -lnccl runs"
[[ $(LD_LIBRARY_PATH=$build/lib LD_PRELOAD=$work/profiler.so timeout 120 "$work/ours") == $'seen\nok' ]] ||
  fail "a profiler before the library"
passed "a profiler in front of it sees the calls"
# No search path: the name libnccl.so.2 is satisfied by what was preloaded.
! timeout 120 "$work/ours" >/dev/null 2>&1 || fail "the program runs without any library"
[[ $(LD_PRELOAD=$library timeout 120 "$work/ours") == ok ]] || fail "the program with LD_PRELOAD"
passed "it runs with LD_PRELOAD alone"

if [[ -n $nvidia_library ]]; then
  cc "${strict[@]}" -isystem "$nvidia_include" "$program" "$nvidia_library" \
    "-Wl,-rpath,$(dirname "$nvidia_library")" -o "$work/nvidias"
  # Not through a pipe: grep -q ends at the first match, and the writer's SIGPIPE would count as a failure.
  [[ $(ldd "$work/nvidias") == *"libnccl.so.2 => $(dirname "$nvidia_library")"* ]] || fail "not linked with NVIDIA's"
  [[ $(LD_PRELOAD=$library timeout 120 "$work/nvidias") == ok ]] || fail "the program linked with NVIDIA's library"
  passed "a program made for NVIDIA's library runs on this one with LD_PRELOAD"
else
  skipped "a program linked with NVIDIA's library: there is no NCCL 2.28.9 on this machine"
fi
