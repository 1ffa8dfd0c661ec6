#!/bin/sh
# The C tests and the saved fuzz inputs for other processors, run by qemu.
#
#   cross.sh BUILD_DIRECTORY PROCESSOR...
#
# What cannot be run is named, with the packages of Debian that it needs; exit
# status 1 if a test fails.  MAKE is the make to use.
set -u
build=$1
shift
status=0
left_out=
for processor; do
    flags=-static
    case $processor in
    aarch64) prefix=aarch64-linux-gnu libc=arm64 ;; # NEON
    arm) prefix=arm-linux-gnueabihf libc=armhf ;;   # 32 bits
    s390x) prefix=s390x-linux-gnu libc=s390x ;;     # big-endian
    riscv64) prefix=riscv64-linux-gnu libc=riscv64 ;;
    i386) prefix=i686-linux-gnu libc=i386 flags='-static -msse2' ;;
    *)
        echo "cross: $processor is not known: aarch64 arm s390x riscv64 i386"
        exit 1
        ;;
    esac
    qemu=$(command -v "qemu-$processor-static" || command -v "qemu-$processor")
    if [ -z "$qemu" ] && [ "$processor" = i386 ] && [ "$(uname -m)" = x86_64 ]; then
        qemu=env # the processor itself runs it
    fi
    missing=
    command -v "$prefix-gcc" >/dev/null \
        || missing="gcc-$(echo "$prefix" | tr _ -) libc6-dev-$libc-cross"
    [ -n "$qemu" ] || missing="$missing qemu-user-static"
    if [ -n "$missing" ]; then
        left_out="$left_out
cross: $processor is left out (Debian: apt install $missing)"
        continue
    fi
    echo "cross: $processor, $prefix-gcc $flags, $qemu"
    ${MAKE:-make} --silent check replay B="$build/$processor" \
        CC="$prefix-gcc $flags" RUN="$qemu" || {
        echo "cross: $processor FAILED"
        status=1
    }
done
[ -z "$left_out" ] || echo "$left_out"
exit $status
