#!/usr/bin/env bash
# Installs and fetches what demo, tests and benches need, and with --build compiles the workspace meanwhile.
# Safe to run again at any time: what is there is left alone, and what was interrupted is taken up again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME
cache=${THMANYAH_CACHE:-$HOME/.cache/thmanyah}
[[ $cache == /* ]] || cache=$PWD/$cache
logs=$cache/log
oldest_rust=1.95
oldest_java=17
kafka=4.3.1
debezium=3.6.3.Final
# RocksDB publishes its library inside its Java artifact; it must be the very version that the locked crate binds.
rocksdb=$(sed -n '/^name = "librocksdb-sys"$/{n;s/^version = ".*+\(.*\)"$/\1/p}' "$root/Cargo.lock")
build=false
[[ ${1:-} == --build ]] && build=true

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }
# Whether version $2 is at least version $1.
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

# ---- What must be there before anything else ---------------------------------------------------------------------------

check_rust() {
    [[ :$PATH: == *:$HOME/.cargo/bin:* ]] || PATH=$PATH:$HOME/.cargo/bin
    local have='' get="get it from https://rustup.rs, or by: rustup update stable"
    if command -v cargo >/dev/null && command -v rustc >/dev/null; then
        have=$(cd "$root" && rustc --version 2>/dev/null | cut -d' ' -f2)
    fi
    [[ -n $have ]] || fail "Rust $oldest_rust or newer is needed and was not found: $get"
    at_least "$oldest_rust" "$have" || fail "Rust $oldest_rust or newer is needed and $have was found: $get"
}

java_version() { java -version 2>&1 | sed -n '1s/.* version "\([0-9]*\).*/\1/p'; }

packages=(binutils ca-certificates curl docker-compose g++ gcc libclang-dev libssl-dev make maven openssl pkg-config postgresql
    python3 python3-venv redis-server unzip util-linux zlib1g-dev)

missing_packages() {
    local installed
    installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null) || true
    for package in "${packages[@]}"; do
        grep -qx "$package installed" <<<"$installed" || echo "$package"
    done
    at_least "$oldest_java" "$(java_version 2>/dev/null || true)" || echo java
}

check_packages() {
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null ||
        fail "this step knows Debian and its relatives only; elsewhere install: ${packages[*]} java>=$oldest_java"
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]})) || return 0
    local as_root=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "run this as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    step_inline "apt-get update" "${as_root[@]}" apt-get update -q
    local java=openjdk-$oldest_java-jre-headless
    [[ -n $(apt-cache madison "$java" 2>/dev/null) ]] || java=default-jre-headless
    missing=("${missing[@]/#java/$java}")
    step_inline "packages: ${missing[*]}" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
    at_least "$oldest_java" "$(java_version)" ||
        fail "\`java\` is still older than $oldest_java: choose a newer one with update-alternatives --config java"
}

# Runs one command by itself, with its output in a log.
step_inline() {
    local name=$1 start=$SECONDS
    shift
    say "  … $name"
    "$@" >"$logs/packages.log" 2>&1 </dev/null || {
        tail -n 15 "$logs/packages.log" >&2
        fail "$name failed (above are its last lines): repair that, then run \`make setup\` again"
    }
    say "  ✓ $name, $((SECONDS - start)) s"
}

# ---- What is fetched ---------------------------------------------------------------------------------------------------

stamped() { [[ -f $1 && $(<"$1") == "$2" ]]; }
# Steps write their stamp last and whole, so that an interrupted one is done again.
stamp() { printf '%s\n' "$2" >"$1.$BASHPID" && mv -f "$1.$BASHPID" "$1"; }

maven() { mvn -q -B -ntp "$@" </dev/null; }

jars_stamp="$(cksum <"$here/pom.xml")"

# Fetches the jars of a profile of pom.xml into a directory, which appears whole or not at all.
fetch_jars() {
    local profile=$1 target=$2
    local work=$cache/tmp/$profile.$BASHPID
    maven -f "$here/pom.xml" "-P$profile" dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$work"
    mkdir -p "$(dirname "$target")"
    rm -rf "$target"
    mv "$work" "$target"
    stamp "$cache/stamp/$profile" "$jars_stamp"
}

need_jars() { ! { stamped "$cache/stamp/$1" "$jars_stamp" && [[ -d $2 ]]; }; }

need_rocksdb() {
    ! { stamped "$cache/stamp/rocksdb" "$rocksdb" && [[ -s $cache/rocksdb/run/librocksdb.so && -s $cache/rocksdb/link/librocksdb.so ]]; }
}

fetch_rocksdb() {
    local work=$cache/tmp/rocksdb.$BASHPID member
    case $(uname -m) in
    x86_64) member=librocksdbjni-linux64.so ;;
    aarch64) member=librocksdbjni-linux-aarch64.so ;;
    *) echo "RocksDB publishes no library for $(uname -m): build with \`cargo build --release\`, which compiles it"; return 1 ;;
    esac
    mkdir -p "$work" "$cache/rocksdb/run" "$cache/rocksdb/link"
    if [[ ! -s $cache/rocksdb/run/librocksdb.so || $(rocksdb_version "$cache/rocksdb/run/librocksdb.so" "$work") != "$rocksdb" ]]; then
        maven dependency:copy "-Dartifact=org.rocksdb:rocksdbjni:$rocksdb" "-DoutputDirectory=$work"
        unzip -p "$work/rocksdbjni-$rocksdb.jar" "$member" >"$work/librocksdb.so"
        local found
        found=$(rocksdb_version "$work/librocksdb.so" "$work")
        if [[ $found != "$rocksdb" ]]; then
            echo "the library says that it is RocksDB $found, but Cargo.lock binds $rocksdb:"
            echo "the two must agree, or memory is corrupted; build with \`cargo build --release\`, which compiles RocksDB"
            return 1
        fi
        mv "$work/librocksdb.so" "$cache/rocksdb/run/librocksdb.so"
    fi
    # Programs are linked against a stub with the C API alone. The library also exports its own zlib, zstd and lz4, and
    # linking it directly would mix those with librdkafka's.
    nm -D --defined-only "$cache/rocksdb/run/librocksdb.so" |
        awk '$2 == "T" && $3 ~ /^rocksdb_/ {print "void " $3 "(void){}"}' >"$work/stub.c"
    [[ -s $work/stub.c ]] || { echo "the RocksDB library offers no C API"; return 1; }
    cc -shared -fPIC -Wl,-soname,librocksdb.so -o "$work/stub.so" "$work/stub.c"
    mv "$work/stub.so" "$cache/rocksdb/link/librocksdb.so"
    rm -rf "$work"
    stamp "$cache/stamp/rocksdb" "$rocksdb"
}

# Asks a RocksDB library for its version; the C API has no call for that, the C++ one has.
rocksdb_version() {
    local library=$1 work=$2
    cat >"$work/version.cc" <<'C++'
#include <iostream>
#include <string>
namespace rocksdb { std::string GetRocksVersionAsString(bool with_patch); }
int main() { std::cout << rocksdb::GetRocksVersionAsString(true); }
C++
    c++ -o "$work/version" "$work/version.cc" "$library" "-Wl,-rpath,$(dirname "$library")" 2>&1 &&
        "$work/version" || echo unknown
}

emulator_stamp="$(cksum <"$here/emulator.txt")"
need_emulator() {
    ! { stamped "$cache/stamp/emulator" "$emulator_stamp" && "$cache/bqemulator/venv/bin/python" -c 'import bqemulator' 2>/dev/null; }
}

# A virtual environment cannot be moved, so it is made in its place; the stamp comes last.
fetch_emulator() {
    local home=$cache/bqemulator/home python=$cache/bqemulator/venv/bin/python version platform
    rm -rf "$cache/bqemulator"
    python3 -m venv "$cache/bqemulator/venv"
    "$python" -m pip install -q --disable-pip-version-check -r "$here/emulator.txt"
    # The emulator starts with an extension of DuckDB, which it would fetch from the net: it is in a package, too.
    read -r version platform < <("$python" -c 'import duckdb
print(*duckdb.sql("SELECT version(), platform FROM pragma_platform()").fetchone())')
    mkdir -p "$home/.duckdb/extensions/$version/$platform"
    cp "$cache"/bqemulator/venv/lib/python3*/site-packages/duckdb_extension_spatial/extensions/"$version"/spatial.duckdb_extension \
        "$home/.duckdb/extensions/$version/$platform/"
    stamp "$cache/stamp/emulator" "$emulator_stamp"
}

# ---- What is prepared: a formatted log directory and archives of loaded classes, which halve each start -------------------

prepare_stamp="$jars_stamp $(cat "$here"/*.properties | cksum)"
need_prepare() { ! { stamped "$cache/stamp/prepare" "$prepare_stamp $(java_version)" && [[ -d $cache/kafka-format ]]; }; }

class_path() { (cd "$1" && LC_ALL=C printf "$1/%s\n" *.jar | LC_ALL=C sort | paste -sd:); }

# So many different ports on which nobody listens.
free_ports() {
    local port left=$1
    while ((left)) && read -r port; do
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; left=$((left - 1)); }
    done < <(shuf -i 20000-29999)
}

# Waits until a port accepts connections, the process $2 ends, or a minute is over.
await_port() {
    for _ in {1..600}; do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

prepare() {
    local port rest controller kafka_path connect_path
    # Not local: they must be there when this job's subshell ends.
    work=$cache/tmp/prepare.$BASHPID broker='' worker=''
    local flags=(-Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xlog:disable -Xlog:all=error)
    mkdir -p "$work/format"
    trap 'exit 143' TERM
    trap 'kill -9 $broker $worker 2>/dev/null || true; rm -rf "$work"' EXIT
    read -r port rest controller < <(free_ports 3 | xargs)
    kafka_path=$(class_path "$cache/jars/kafka")
    connect_path=$(class_path "$cache/jars/connect"):$cache/jars/kafka/slf4j-simple-1.7.36.jar
    sed "s|\${DIR}|$work/log|; s|\${PORT}|$port|; s|\${CONTROLLER_PORT}|$controller|" \
        "$here/server.properties" >"$work/server.properties"
    sed "s|\${BOOTSTRAP}|127.0.0.1:$port|; s|\${PORT}|$rest|; s|\${PLUGINS}|$cache/plugins|" \
        "$here/connect.properties" >"$work/connect.properties"
    java "${flags[@]}" -cp "$kafka_path" kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAA \
        -c "$work/server.properties"
    cp "$work/log/bootstrap.checkpoint" "$work/format/"
    rm -rf "$cache/kafka-format" "$cache/jars/"*.jsa
    mv "$work/format" "$cache/kafka-format"
    java "${flags[@]}" "-XX:ArchiveClassesAtExit=$work/kafka.jsa" -cp "$kafka_path" \
        kafka.Kafka "$work/server.properties" &
    broker=$!
    await_port "$port" "$broker"
    java "${flags[@]}" "-XX:ArchiveClassesAtExit=$work/connect.jsa" -cp "$connect_path" \
        org.apache.kafka.connect.cli.ConnectDistributed "$work/connect.properties" &
    worker=$!
    await_port "$rest" "$worker"
    curl -sS --noproxy '*' --max-time 60 --retry 5 --retry-all-errors "http://127.0.0.1:$rest/connectors" -o /dev/null
    kill "$worker" && wait "$worker" || true
    kill "$broker" && wait "$broker" || true
    # Without them a start is slower and nothing else.
    mv "$work"/*.jsa "$cache/jars/" || echo "no class archives were made"
    stamp "$cache/stamp/prepare" "$prepare_stamp $(java_version)"
}

# ---- Compiling -----------------------------------------------------------------------------------------------------------

compile() {
    export ROCKSDB_LIB_DIR=${ROCKSDB_LIB_DIR:-$cache/rocksdb/link}
    export RUSTFLAGS=${RUSTFLAGS:--C link-arg=-Wl,-rpath,$cache/rocksdb/run}
    cd "$root"
    # Libraries need no RocksDB yet, which may still be on its way; programs do.
    cargo build --release --workspace --lib
    while [[ -e $cache/tmp/fetching-rocksdb.$$ ]]; do sleep 0.1; done
    cargo build --release --workspace
}

# ---- Side by side --------------------------------------------------------------------------------------------------------

declare -A names=() advice=() starts=()
network="if a download failed: is the network up, and does Maven reach its repository (a proxy goes into ~/.m2/settings.xml)?
      Then run \`make setup\` again; it goes on where it stopped."

# launch ID NAME ADVICE FUNCTION ARGUMENTS...
launch() {
    local id=$1
    names[$id]=$2 advice[$id]=$3 starts[$id]=$SECONDS
    shift 3
    ("$@") >"$logs/$id.log" 2>&1 </dev/null &
    jobs_by_id[$id]=$!
}

# Waits for all that was launched; tells how each ended, and every 15 s what still runs.
await_all() {
    local failed=0 told=$SECONDS id
    while ((${#jobs_by_id[@]})); do
        for id in "${!jobs_by_id[@]}"; do
            kill -0 "${jobs_by_id[$id]}" 2>/dev/null && continue
            local took=$((SECONDS - starts[$id]))
            if wait "${jobs_by_id[$id]}"; then
                say "  ✓ ${names[$id]}, $took s"
            else
                failed=1
                say "  ✗ ${names[$id]} failed after $took s; the end of $logs/$id.log:"
                tail -n 25 "$logs/$id.log" | sed 's/^/      /' >&2
                say "    → ${advice[$id]}"
            fi
            rm -f "$cache/tmp/fetching-$id.$$"
            unset "jobs_by_id[$id]"
        done
        if ((SECONDS - told >= 15)); then
            told=$SECONDS
            for id in "${!jobs_by_id[@]}"; do
                local more=''
                [[ $id == compile ]] && more=", $(grep -c Compiling "$logs/compile.log" || true) crates"
                say "  … ${names[$id]}$more, $((SECONDS - starts[$id])) s"
            done
        fi
        sleep 0.1
    done
    return $failed
}

stop_jobs() {
    local id
    for id in "${!jobs_by_id[@]}"; do
        pkill -TERM -P "${jobs_by_id[$id]}" 2>/dev/null || true
        kill "${jobs_by_id[$id]}" 2>/dev/null || true
    done
}

declare -A jobs_by_id=()
check_rust
[[ -n $rocksdb ]] || fail "Cargo.lock names no librocksdb-sys: restore it with \`git checkout Cargo.lock\`"
mkdir -p "$logs" "$cache/stamp" "$cache/tmp" ||
    fail "cannot write to $cache: make it writable, or set THMANYAH_CACHE to another directory"
exec 9>"$cache/setup.lock"
flock -n 9 || { say "  … another set-up is at work, waiting for it"; flock 9; }
trap 'stop_jobs' EXIT
trap 'exit 130' INT TERM
check_packages
# What an interrupted run left.
find "$cache/tmp" -mindepth 1 -maxdepth 1 -exec rm -rf {} +

# Kafka and Connect first, then what is prepared with both.
stack() {
    if need_jars kafka "$cache/jars/kafka"; then fetch_jars kafka "$cache/jars/kafka"; fi
    if need_jars connect "$cache/jars/connect"; then fetch_jars connect "$cache/jars/connect"; fi
    if need_jars debezium "$cache/plugins/debezium"; then fetch_jars debezium "$cache/plugins/debezium"; fi
    if need_prepare; then prepare; fi
}
if need_rocksdb; then
    touch "$cache/tmp/fetching-rocksdb.$$"
    launch rocksdb "RocksDB $rocksdb" "$network" fetch_rocksdb
fi
if need_jars kafka "$cache/jars/kafka" || need_jars connect "$cache/jars/connect" ||
    need_jars debezium "$cache/plugins/debezium" || need_prepare; then
    launch stack "Kafka and Connect $kafka, Debezium $debezium" "$network" stack
fi
if need_emulator; then
    launch emulator "the BigQuery emulator" "if a download failed: is the network up, and does pip reach its index?
      Then run \`make setup\` again." fetch_emulator
fi
if $build; then
    launch compile "compiling the workspace" "see the messages above" compile
fi
await_all || exit 1
