# What the scripts that build images share; to be sourced after `set -euo pipefail`.

program="$(basename "$0")"
say() { printf '%s: %s\n' "$program" "$*" >&2; }
die() { say "$*"; exit 1; }

# Debian keeps modprobe, mke2fs and sfdisk where only root looks.
PATH="$PATH:/usr/sbin:/sbin"

# need PACKAGES TOOL...: ends the build unless all tools are there.
need() {
    local packages="$1" tool
    shift
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "$tool is missing: apt-get install $packages"
    done
}

# An image has no libraries for the agent, or other ones than it was linked with.
check_agent() { # FILE
    [[ -x "$1" ]] || die "$1 is not an executable file"
    # ldd says so on standard output or error, by version, and fails for a file without a loader.
    [[ "$( { LC_ALL=C ldd "$1" 2>&1 || true; } )" =~ (statically linked|not a dynamic executable) ]] ||
        die "$1 is dynamically linked: build it with -C target-feature=+crt-static"
    # Guests are given it by qemu-ga, piece by piece.
    [[ "$(stat -c %s "$1")" -le $((3 << 20)) ]] ||
        die "$1 has $(stat -c %s "$1") bytes: an agent has at most 3 MiB"
}

# The directory and the release of a kernel, of this system's release or of SUITE, for the functions below.
find_kernel() { # [SUITE]
    kernel_dir="$("$(dirname "${BASH_SOURCE[0]}")/fetch-kernel" ${1:+"$1"})"
    release="$(sed -n 's/.*"release":"\([^"]*\)".*/\1/p' "$kernel_dir/manifest.json")"
}

# The files of these modules and of those that they need, each once and in the order to load them.
module_files() { # MODULE...
    local module
    # modprobe prints "insmod PATH", dependencies first, or "builtin NAME".
    for module in "$@"; do
        modprobe -S "$release" -d "$kernel_dir" --show-depends "$module" ||
            die "the kernel $release has no module $module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
}

# Uncompressed, since finit_module(2) without a decompressor in the kernel takes nothing else.
unpack_module() { # FROM TO
    case "$1" in
        *.ko) cp "$1" "$2" ;;
        *.ko.xz) xz -dc "$1" >"$2" ;;
        *.ko.zst) zstd -qdc "$1" >"$2" ;;
        *) die "$1 has a compression that this script does not know" ;;
    esac
}

# The ELF file in a bzImage. QEMU enters that directly, by its PVH note, where a bzImage unpacks itself: under
# TCG that is half of the time that a guest takes to boot. Where the payload is, and that how long it is unpacked
# stands in its last four bytes: linux, Documentation/arch/x86/boot.rst, payload_offset and payload_length.
unpack_kernel() { # FROM TO
    local sectors offset length magic start unpack
    sectors="$(number_at "$1" $((0x1f1)) 1)"
    offset="$(number_at "$1" $((0x248)) 4)" length="$(number_at "$1" $((0x24c)) 4)"
    start=$(((sectors + 1) * 512 + offset))
    magic="$(number_at "$1" "$start" 4)"
    case "$magic" in
        $((0x587a37fd))) unpack=(xz -dc) ;;
        $((0xfd2fb528))) unpack=(zstd -qdc) ;;
        *) die "$1 has a compression that this script does not know" ;;
    esac
    head -c $((start + length - 4)) "$1" | tail -c "+$((start + 1))" | "${unpack[@]}" >"$2"
}

# A number of a file, little-endian as x86 is.
number_at() { # FILE OFFSET BYTES
    local number
    number="$(od --address-radix=n --endian=little --format="u$3" --skip-bytes="$2" --read-bytes="$3" "$1")"
    printf '%s' "${number// /}"
}

# Unpacks these modules and what they need into DIR, flat; DIR/order names them in their order.
install_modules() { # DIR MODULE...
    local directory="$1" path name
    shift
    module_files "$@" >"$directory/paths"
    while read -r path; do
        name="$(basename "$path")"
        name="${name%%.ko*}.ko"
        unpack_module "$path" "$directory/$name"
        printf '/modules/%s\n' "$name" >>"$directory/order"
    done <"$directory/paths"
    rm "$directory/paths"
    chmod 0644 "$directory"/*
}

# DIR as an initramfs; equal files give equal bytes.
pack_initramfs() { # DIR ARCHIVE
    find "$1" -exec touch --no-dereference --date=@0 {} +
    (cd "$1" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort |
        cpio --create --format=newc --owner=0:0 --reproducible --quiet) | gzip -9 --no-name >"$2"
}

# A file as a manifest names it.
file_entry() { # NAME PATH
    printf '{"name":"%s","bytes":%s,"sha256":"%s"}' "$1" "$(stat -c %s "$2")" \
        "$(sha256sum <"$2" | cut -d ' ' -f 1)"
}
