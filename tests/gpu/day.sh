#!/usr/bin/env bash
# day.sh STAGE...: what there is to check and to measure on a machine with a GPU; ./dev gpu calls it.
#
# Each stage writes a Markdown fragment from what it measured, with the commands, into $OUT (build/gpu-day
# when that is unset); `cat build/gpu-day/*.md` is the page of results. All output of the programs is in
# day.log beside them. The status is 0 only if all stages ran and found nothing wrong.
#
# One call ends within DAY_SECONDS (570): what it had no time for it says, and fails.
set -uo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.." || exit

out=${OUT:-build/gpu-day}
pack=build/gpu-pack
limit=${DAY_SECONDS:-570}
fragment=/dev/null
failed=0
child=0
trap '((child == 0)) || kill "$child" 2>/dev/null; exit 130' INT TERM HUP
path_before=${LD_LIBRARY_PATH:-}

usage() {
  cat <<'END'
usage: ./dev gpu STAGE...

on a machine with everything that ./dev build needs, GPU or not:
  pack       build, and put the programs, the libraries they need and what building needs into build/gpu-pack,
             for a machine with a GPU where nothing can be installed

on a machine with a GPU; each stage uses build/gpu-pack where its programs start there, and else builds:
  build      have the programs, say what the machine is; 1-build.md
  test       the tests labelled gpu, staged and in place; 2-test.md
  sanitize   compute-sanitizer's memcheck and racecheck over some of them; 3-sanitize.md
  numbers    gpu_bench: speed, latency, memory, start, and NCCL beside us; 4-numbers.md
  torch      PyTorch on our libnccl.so.2 (tests/torch); 5-torch.md
END
}

say() { printf '%s\n' "$*" | tee -a "$log" >&2; }
# note LINE...: into the fragment.
note() { printf '%s\n' "$@" >>"$fragment"; }
# wrong LINE: into the fragment, and the stage fails.
wrong() {
  failed=1
  say "gpu: $*"
  note "**$***" ""
}
left() { echo $((limit - SECONDS)); }

# begin NUMBER-NAME TITLE
begin() {
  fragment=$out/$1.md
  printf '## %s\n\n' "$2" >"$fragment"
  say "== $2 (${SECONDS}s)"
}

# limited SECONDS COMMAND...: within the time that is left, too; 125 when that is too little to begin.
limited() {
  local seconds=$1 have
  shift
  have=$(($(left) - 5))
  ((have >= 10)) || return 125
  ((seconds < have)) || seconds=$have
  # Beside this shell, which so hears of a signal and passes it on.
  timeout --kill-after=5 "$seconds" "$@" </dev/null &
  child=$!
  wait "$child"
}

# why STATUS: in words.
why() {
  case $1 in
    0) echo "ended well" ;;
    124 | 137) echo "was ended: it took too long" ;;
    125) echo "was not run: no time left" ;;
    *) echo "ended with status $1" ;;
  esac
}

# shown FORMAT SECONDS COMMAND...: the command and its output into the fragment, as it is (FORMAT markdown) or
# in a block.
shown() {
  local format=$1 seconds=$2 status text errors
  shift 2
  note '```' "\$ $*" '```' ""
  text=$(mktemp)
  errors=$(mktemp)
  say "\$ $*"
  limited "$seconds" "$@" >"$text" 2>"$errors"
  status=$?
  cat "$text" "$errors" >>"$log"
  if [[ $format == markdown ]]; then
    cat "$text" >>"$fragment"
  else
    note '```'
    cat "$text" >>"$fragment"
    note '```'
  fi
  note ""
  ((status == 0)) || wrong "It $(why "$status"). $(tail -n 1 "$errors" | cut -c1-300)"
  rm -f "$text" "$errors"
}

# ---- What the stages need

need_gpu() {
  local text
  if ! command -v nvidia-smi >/dev/null; then
    wrong "This stage needs a GPU, and there is no nvidia-smi here."
    return 1
  fi
  if ! text=$(nvidia-smi -L 2>&1) || [[ $text != GPU* ]]; then
    wrong "This stage needs a GPU, and nvidia-smi finds none: $(head -n 1 <<<"$text")"
    return 1
  fi
}

# The programs of this folder find their libraries here and run.
usable() {
  local folder=$1
  [[ -x $folder/bin/comm-info && -x $folder/bin/gpu_bench ]] || return 1
  "$folder/bin/comm-info" --knobs >/dev/null 2>>"$log" || return 1
  ! ldd "$folder"/bin/gpu_bench "$folder"/lib/libnccl.so.2 "$folder"/tests/gpu_* 2>>"$log" | grep -q 'not found'
}

# Libraries of the pack that this machine does not have; its own come first, since other programs use them.
use_packed_libraries() {
  local missing=$pack/missing library
  rm -rf "$missing" && mkdir -p "$missing"
  for library in "$pack"/deps/*; do
    [[ -e $library ]] || continue
    /sbin/ldconfig -p | grep -q "^\s*$(basename "$library") " || ln -s "$PWD/$library" "$missing/"
  done
  export LD_LIBRARY_PATH=$PWD/$pack/lib:$PWD/$missing${path_before:+:$path_before}
}

# The headers and libraries of the pack, for CMake on a machine without the packages.
sdk_arguments=()
use_sdk() {
  local sdk=$PWD/$pack/sdk libraries
  [[ -e $pack/sdk.tar.gz ]] || return 0
  [[ -d $sdk ]] || { mkdir -p "$sdk" && tar -xzf "$pack/sdk.tar.gz" -C "$sdk"; }
  libraries=$sdk/usr/lib/x86_64-linux-gnu
  cat >"$sdk/pkg-config" <<END
#!/bin/sh
PKG_CONFIG_SYSROOT_DIR=$sdk PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$sdk/usr/share/pkgconfig \\
LD_LIBRARY_PATH=$libraries exec $sdk/usr/bin/pkgconf "\$@"
END
  chmod +x "$sdk/pkg-config"
  sdk_arguments=(-DCMAKE_PREFIX_PATH="$sdk/usr" -DPKG_CONFIG_EXECUTABLE="$sdk/pkg-config"
    -DOPENSSL_ROOT_DIR="$sdk/usr" -DCMAKE_BUILD_RPATH="$libraries"
    -DCMAKE_CXX_FLAGS="-isystem $sdk/usr/include/x86_64-linux-gnu")
  # For the linker, which follows libraries to those that they need, and for programs that do so.
  export LD_LIBRARY_PATH=$libraries${path_before:+:$path_before}
}

test_names() { ctest --test-dir "$1" -N -L '^gpu$' | sed -n 's/^ *Test *#[0-9]*: //p'; }

# targets FOLDER: what the stages run, by name.
targets() { test_names "$1" | sed 's/_on_gpu$//; s/_peers$//' | sort -u; }

# The compute capability to build for: this machine's GPU's, or that of DAY_ARCHITECTURE (90, Hopper).
architecture() {
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d . | grep -E '^[0-9]+$' ||
    echo "${DAY_ARCHITECTURE:-90}"
}

build_here() {
  local missing=() tests=() launcher=() tool status
  for tool in cmake ninja c++ nvcc; do
    command -v "$tool" >/dev/null || [[ $tool == nvcc && -x /usr/local/cuda/bin/nvcc ]] || missing+=("$tool")
  done
  if ((${#missing[@]} > 0)); then
    wrong "The programs cannot be built here: no ${missing[*]}."
    return 1
  fi
  use_sdk
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1 # as in ./dev
  say "gpu: building in $programs"
  if [[ ! -e $programs/build.ninja ]]; then
    mkdir -p "$programs"
    if command -v ccache >/dev/null; then
      launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
    fi
    # One architecture: each more takes nvcc a minute or two.
    limited 300 cmake -S . -B "$programs" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCOMM_BUILD_TESTS=ON \
      -DCOMM_CUDA=ON -DCOMM_CUDA_ARCHITECTURES="$(architecture)" "${launcher[@]}" "${sdk_arguments[@]}" >"$programs/configure.log" 2>&1
    status=$?
    cat "$programs/configure.log" >>"$log"
    if ((status != 0)); then
      wrong "CMake $(why "$status"): $(grep -m 1 -A 2 'CMake Error' "$programs/configure.log" | tr '\n' ' ')"
      return 1
    fi
  fi
  # shellcheck disable=SC2207 # one word each
  tests=($(targets "$programs"))
  if ((${#tests[@]} == 0)); then
    wrong "The build in $programs has no tests (no GoogleTest when it was configured?): remove it, then again."
    return 1
  fi
  limited 500 ninja -C "$programs" comm nccl comm-info gpu_bench "${tests[@]}" >>"$log" 2>&1
  status=$?
  if ((status != 0)); then
    wrong "The build $(why "$status"): $(tail -n 1 "$log")"
    return 1
  fi
}

# Sets `programs`.
have_programs() {
  programs=$pack
  if [[ -d $pack/lib ]]; then
    use_packed_libraries
    usable "$pack" && return 0
    say "gpu: the programs of $pack do not start here"
    export LD_LIBRARY_PATH=$path_before
  fi
  programs=build-gpu
  build_here
}

# ---- Stages

stage_pack() {
  begin 0-pack "Packing"
  rm -rf "$pack"
  programs=build-gpu
  build_here || return
  mkdir -p "$pack"/{bin,lib,tests,deps}
  cp "$programs"/bin/{comm-info,gpu_bench} "$pack/bin/"
  cp -L "$programs"/lib/{libcomm.so.1,libnccl.so.2} "$pack/lib/"
  test_names "$programs" >"$pack/tests.list"
  local name library
  for name in $(targets "$programs"); do cp "$programs/tests/$name" "$pack/tests/"; done
  strip "$pack"/bin/* "$pack"/lib/* "$pack"/tests/*
  # All that is not the compiler's or the C library's: those of the other machine are newer.
  ldd "$pack"/{bin,lib,tests}/* | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u |
    grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|libcomm|libnccl)\.so' |
    while read -r library; do cp -L "$library" "$pack/deps/"; done
  git describe --always --dirty >"$pack/commit" 2>/dev/null || true
  local packages=(libfmt-dev libfmt9 libhwy-dev libhwy1 libhwloc-dev libhwloc15 libpugixml-dev libpugixml1v5 libudev1 libssl-dev libssl3 libgtest-dev
    libgmock-dev pkgconf-bin libpkgconf3)
  if dpkg-query -W "${packages[@]}" >/dev/null 2>&1; then
    # Not the large archives; of GoogleTest there is nothing else. /lib is /usr/lib.
    { dpkg -L "${packages[@]}" | sed 's|^/lib/|/usr/lib/|' |
      grep -E '^/usr/(include|lib|bin|share/pkgconfig)/' | grep -v '\.a$'
      dpkg -L libgtest-dev libgmock-dev libpugixml-dev | grep '\.a$'; } | sort -u |
      while read -r name; do [[ -d $name && ! -L $name ]] || printf '%s\n' "${name#/}"; done |
      tar -C / -czf "$pack/sdk.tar.gz" --ignore-failed-read -T - 2>>"$log"
  else
    say "gpu: without headers for a build on the other machine: that is for Debian 12 alone"
  fi
  say "gpu: $(du -sh "$pack" | cut -f1) in $pack"
  rm -f "$fragment"
}

stage_build() {
  begin 1-build "The machine and the programs"
  need_gpu || return
  have_programs || return
  local version
  version=$(cat "$pack/commit" 2>/dev/null || git describe --always --dirty 2>/dev/null || echo unknown)
  note "| | |" "|---|---|" \
    "| GPU, driver, memory | $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader |
      head -n 1) |" \
    "| cores, kernel | $(nproc), $(uname -r) |" \
    "| nvcc | $(nvcc --version 2>/dev/null | sed -n 's/.*release \([^,]*\),.*/\1/p' | grep . || echo none) |" \
    "| commit | $version |" \
    "| programs | $([[ $programs == "$pack" ]] && echo 'built elsewhere' || echo 'built here') |" ""
  shown block 60 "$programs/bin/comm-info"
}

stage_test() {
  begin 2-test "Tests"
  need_gpu || return
  have_programs || return
  local names name program start status text skipped=0
  if [[ $programs == "$pack" ]]; then names=$(cat "$pack/tests.list"); else names=$(test_names "$programs"); fi
  note "As \`ctest -L '^gpu$'\` runs them: staged, and (\`_peers\`) in place, where \`GPU_TEST_PEERS=1\` gives each" \
    "rank its GPU before it meets the others." "" \
    "| test | passed | skipped | failed | seconds | |" "|---|---|---|---|---|---|"
  text=$(mktemp)
  for name in $names; do
    program=${name%_on_gpu}
    start=$SECONDS
    if [[ $program == *_peers ]]; then
      program=${program%_peers}
      GPU_TEST_PEERS=1 limited 180 "$programs/tests/$program" >"$text" 2>&1
    else
      limited 180 "$programs/tests/$program" >"$text" 2>&1
    fi
    status=$?
    { echo "---- $name: status $status"; cat "$text"; } >>"$log"
    note "| $name | $(count PASSED "$text") | $(count SKIPPED "$text") | $(count FAILED "$text") | \
$((SECONDS - start)) | $(why "$status") |"
    grep -q 'no GPU here' "$text" && skipped=1
    ((status == 0)) || { failed=1 && say "gpu: $name $(why "$status")"; }
    grep -E '^\[  FAILED  \] [A-Za-z_/0-9]+\.' "$text" | sort -u >>"$text.failures"
  done
  note ""
  if [[ -s $text.failures ]]; then note '```' && cat "$text.failures" >>"$fragment" && note '```' ""; fi
  if ((skipped)); then wrong "A test found no GPU, although nvidia-smi does."; fi
  rm -f "$text" "$text.failures"
}

# count WORD FILE: of GoogleTest's summary.
count() { sed -n "s/^\[  $1 *\] \([0-9]*\) tests\{0,1\}.*/\1/p" "$2" | tail -n 1 | grep . || echo 0; }

# sanitized TOOL PROGRAM ARGUMENTS...
sanitized() {
  local tool=$1 start=$SECONDS status text summary
  shift
  text=$(mktemp)
  say "\$ compute-sanitizer --tool $tool $*"
  # Answers such as "not memory of a GPU" are how the library learns what a pointer is.
  limited 150 compute-sanitizer --tool "$tool" --target-processes all --report-api-errors no --error-exitcode 9 "$@" \
    >"$text" 2>&1
  status=$?
  cat "$text" >>"$log"
  summary=$(grep -E 'SUMMARY:' "$text" | tail -n 1 | sed 's/^=* *//')
  note "| $tool | \`$*\` | ${summary:-no summary} | $((SECONDS - start)) | $(why "$status") |"
  if grep -q 'Device not supported' "$text"; then
    wrong "compute-sanitizer does not support this device: another runtime of the machine may."
    rm -f "$text"
    return 1
  fi
  if ((status != 0)); then
    failed=1
    say "gpu: $tool $(why "$status")"
  fi
  rm -f "$text"
}

stage_sanitize() {
  begin 3-sanitize "compute-sanitizer"
  need_gpu || return
  if ! command -v compute-sanitizer >/dev/null; then
    wrong "There is no compute-sanitizer here."
    return
  fi
  have_programs || return
  local bench=("$programs/bin/gpu_bench" --library "$PWD/$programs/lib/libnccl.so.2" --rounds 1)
  note "With \`--target-processes all --report-api-errors no --error-exitcode 9\`." "" \
    "| tool | program | result | seconds | |" "|---|---|---|---|---|"
  # Those that go by all kernels with few bytes first.
  sanitized memcheck "${bench[@]}" --ranks 2 -b 4 -e 1M -f 64 || return
  sanitized racecheck "${bench[@]}" --ranks 2 -b 4 -e 64K -f 64
  export GPU_TEST_PEERS=1
  sanitized memcheck "$programs/tests/gpu_peers_test"
  sanitized memcheck "$programs/tests/gpu_messages_test" '--gtest_filter=-Abort.*:DeadPeer.*'
  sanitized memcheck "$programs/tests/gpu_graphs_test"
  sanitized racecheck "$programs/tests/gpu_peers_test" '--gtest_filter=Peers.OnOneGpu*:Peers.PreMultiplySums'
  sanitized memcheck "$programs/tests/gpu_collectives_test" '--gtest_filter=OneGpu.*:*AsThreads*/1'
  unset GPU_TEST_PEERS
  note ""
}

# NVIDIA's libnccl.so.2, as PyTorch's packages bring it; nothing where there is none.
nvidia_nccl() {
  python3 -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0] + "/lib/libnccl.so.2")' 2>>"$log" ||
    /sbin/ldconfig -p | sed -n 's/.*libnccl\.so\.2 .*=> //p' | head -n 1
}

stage_numbers() {
  begin 4-numbers "Numbers"
  need_gpu || return
  have_programs || return
  local ours=$programs/lib/libnccl.so.2 theirs program=$programs/bin/gpu_bench
  theirs=$(nvidia_nccl)
  # A run is one process or its ranks; its libraries take turns.
  note "### All-reduce of large buffers, 4 ranks on one GPU" ""
  shown markdown 90 "$program" --library "$ours" --ranks 4 -b 64M -e 1G
  shown markdown 90 "$program" --library "$ours" --ranks 4 --procs -b 64M -e 1G
  note "### Latency, 4 ranks on one GPU" ""
  shown markdown 60 "$program" --library "$ours" --ranks 4 -b 8 -e 8K -f 4
  shown markdown 60 "$program" --library "$ours" --ranks 4 --procs -b 8 -e 8K -f 4
  note "### One rank, out of place" ""
  if [[ -e $theirs ]]; then
    shown markdown 90 "$program" --library "$ours" --library "$theirs" -b 8 -e 1G -f 8
  else
    wrong "No libnccl.so.2 of NVIDIA is here to measure beside ours."
    shown markdown 90 "$program" --library "$ours" -b 8 -e 1G -f 8
  fi
  note "### GPU memory of communicators, 4 ranks" ""
  shown markdown 60 "$program" --library "$ours" --what memory --ranks 4
  shown markdown 60 "$program" --library "$ours" --what memory --ranks 4 --procs
  if [[ -e $theirs ]]; then
    note "One rank:" ""
    shown markdown 60 "$program" --library "$ours" --library "$theirs" --what memory
  fi
  note "### Making communicators, 8 ranks" ""
  shown markdown 60 "$program" --library "$ours" --what init --ranks 8
  shown markdown 60 "$program" --library "$ours" --what init --ranks 8 --procs
}

stage_torch() {
  begin 5-torch "PyTorch"
  need_gpu || return
  have_programs || return
  export LIBCOMM_NCCL=$PWD/$programs/lib/libnccl.so.2
  note "With \`LIBCOMM_NCCL=$programs/lib/libnccl.so.2\`, which the scripts preload into each rank." ""
  shown block 240 python3 -B tests/torch/ddp_losses.py
  shown block 150 python3 -B tests/torch/abort_on_kill.py
  shown block 500 python3 -B tests/torch/collectives.py
}

stages=("$@")
if ((${#stages[@]} == 0)) || [[ " $* " == *" --help "* || " $* " == *" -h "* ]]; then
  usage
  exit $((${#stages[@]} == 0 ? 2 : 0))
fi
mkdir -p "$out"
log=$out/day.log
[[ " $* " == *" pack "* ]] && limit=100000 # no machine is held for it
for stage in "${stages[@]}"; do
  case $stage in
    pack) stage_pack ;;
    build) stage_build ;;
    test) stage_test ;;
    sanitize) stage_sanitize ;;
    numbers) stage_numbers ;;
    torch) stage_torch ;;
    *)
      printf 'gpu: no stage %s\n' "$stage" >&2
      usage >&2
      exit 2
      ;;
  esac
done
exit $failed
