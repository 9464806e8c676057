//! Which device of a guest is behind an I/O port or a guest-physical address: what QEMU's human
//! monitor prints for `info mtree -f`.
//!
//! ```text
//! FlatView #1
//!  AS "I/O", root: io
//!  Root memory region: io
//!   0000000000000170-0000000000000177 (prio 0, i/o): ide
//!   0000000000000178-00000000000001ef (prio 0, i/o): io @0000000000000178
//! ```
//!
//! (qemu: softmmu/memory.c, `mtree_print_flatview`; system/memory.c since 8.2.) There is a view for
//! each set of address spaces that see the same; of these a vCPU has two, `I/O` and `memory`. A
//! range in which there is nothing has the root region's own name. The text is meant for people and
//! has changed with time, so what is not understood is left out and not an error: a device without
//! a name is better than a wrong one.
//!
//! Guests move their devices while they boot, so the map is that of the moment when it was read.

use vslice_core::text::harmless;
use vslice_trace::memory_map::{DeviceRange, MemoryMap};

/// Ranges that are kept of each address space; real guests have tens to hundreds.
const RANGES_MAX: usize = 4096;
/// Letters that are kept of a name.
const NAME_LETTERS_MAX: usize = 64;

/// Parses the output of `info mtree -f`. A text without a flat view gives an empty map.
#[must_use]
pub fn parse(text: &str) -> MemoryMap {
    let mut map = MemoryMap::default();
    for view in text.split("FlatView #").skip(1) {
        let view = View::parse(view);
        match view.space {
            Some(Space::Ports) if map.ports.is_empty() => map.ports = view.ranges,
            Some(Space::Memory) if map.memory.is_empty() => map.memory = view.ranges,
            Some(_) | None => {}
        }
    }
    map
}

/// The address spaces that a vCPU's exits are in.
enum Space {
    Ports,
    Memory,
}

/// One flat view.
struct View {
    space: Option<Space>,
    ranges: Vec<DeviceRange>,
}

impl View {
    fn parse(text: &str) -> View {
        let mut view = View { space: None, ranges: Vec::new() };
        let mut root = "";
        for line in text.lines().map(str::trim) {
            if let Some(space) = line.strip_prefix("AS \"") {
                view.space = view.space.take().or_else(|| space_of(space));
            } else if let Some(name) = line.strip_prefix("Root memory region: ") {
                root = name;
            } else if view.ranges.len() < RANGES_MAX
                && let Some(range) = range(line, root)
                // QEMU prints them in this order; a text that does not is not searched by halves.
                && view.ranges.last().is_none_or(|before| before.last < range.first)
            {
                view.ranges.push(range);
            }
        }
        view
    }
}

/// The space in `I/O", root: io`, after the first quotation mark.
fn space_of(rest: &str) -> Option<Space> {
    match rest.split_once("\", root: ")?.0 {
        "I/O" => Some(Space::Ports),
        "memory" => Some(Space::Memory),
        _ => None,
    }
}

/// `0000000000000cfa-0000000000000cfb (prio 0, i/o): pci-conf-idx @0000000000000002`, unless it is
/// RAM or part of the root.
fn range(line: &str, root: &str) -> Option<DeviceRange> {
    let (addresses, rest) = line.split_once(" (prio ")?;
    let (kind, name) = rest.split_once("): ")?;
    let (_prio, kind) = kind.split_once(", ")?;
    // `ram`, `nv-ram`: no access to it ends in QEMU. Those to `rom`, `romd` and `i/o` do, and what
    // else may stand there is kept.
    if kind == "ram" || kind == "nv-ram" {
        return None;
    }
    let name = without_offset(name);
    if name == root {
        return None;
    }
    let (first, last) = addresses.split_once('-')?;
    let (first, last) = (hexadecimal(first)?, hexadecimal(last)?);
    let name = harmless(name).chars().take(NAME_LETTERS_MAX).collect();
    (first <= last).then_some(DeviceRange { first, last, name })
}

/// A name without the offset in its region, and without what follows that: owners, accelerators.
fn without_offset(name: &str) -> &str {
    let is_offset = |rest: &str| {
        let digits = rest.split(' ').next().unwrap_or_default();
        // `TARGET_FMT_plx` is always 16 digits.
        digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let offset = name.match_indices(" @").find(|(at, mark)| is_offset(&name[at + mark.len()..]));
    offset.map_or(name, |(at, _)| &name[..at])
}

/// Digits only: `from_str_radix` would take a sign.
fn hexadecimal(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PC_7_2: &str = include_str!("../tests/fixtures/mtree-7.2-pc.txt");

    #[test]
    fn the_devices_of_a_pc_are_named() {
        let map = parse(PC_7_2);
        let ports = [
            (0x70, Some("rtc-index")),
            (0x71, Some("rtc")),
            (0x1f0, Some("ide")),
            (0x1f7, Some("ide")),
            (0x3f6, Some("ide")),
            (0x3f8, Some("serial")),
            (0x608, Some("acpi-tmr")),
            (0xcf8, Some("pci-conf-idx")),
            (0xcf9, Some("piix3-reset-control")),
            (0xcfb, Some("pci-conf-idx")),
            (0xcfc, Some("pci-conf-data")),
            (0xc000, Some("virtio-pci")),
            (0xc0c4, Some("bmdma")),
            (0x1f8, None),
            (0xffff, None),
            (0x7, Some("dma-chan")),
            (0, Some("dma-chan")),
        ];
        for (port, device) in ports {
            assert_eq!(map.device_at_port(port), device, "{port:#x}");
        }
        let addresses = [
            (0xfebf_0000, Some("nvme")),
            (0xfebf_1fff, Some("nvme")),
            (0xfebf_2000, Some("msix-table")),
            (0xfebf_9000, Some("virtio-pci-isr-virtio-blk")),
            (0xfebf_b000, Some("virtio-pci-notify-virtio-blk")),
            (0xfebf_f004, Some("virtio-pci-notify-virtio-scsi")),
            (0xfed0_00f0, Some("hpet")),
            (0xfee0_0300, Some("apic-msi")),
            (0xf_0000, Some("pc.ram")),
            (0xffff_fff0, Some("pc.bios")),
            (0x10_0000, None),
            (0xfebe_ffff, None),
            (u64::MAX, None),
        ];
        for (address, device) in addresses {
            assert_eq!(map.device_at_memory(address), device, "{address:#x}");
        }
    }

    #[test]
    fn a_map_survives_its_manifest() {
        let map = parse(PC_7_2);
        let json = serde_json::to_string(&map).expect("it is plain");
        assert_eq!(serde_json::from_str::<MemoryMap>(&json).expect("its own"), map);
        assert!(!map.is_empty() && MemoryMap::default().is_empty());
    }

    #[test]
    fn owners_and_accelerators_are_no_names() {
        let text = "FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n\
            \x20 0000000000000000-000000000000000f (prio 0, i/o): a @b @0000000000000010 KVM\n\
            \x20 0000000000000010-000000000000001f (prio -1, nv-ramd): pc @home\n";
        let map = parse(text);
        assert_eq!(map.device_at_port(3), Some("a @b"));
        assert_eq!(map.device_at_port(0x10), Some("pc @home"));
    }

    #[test]
    fn only_the_spaces_of_a_vcpu_count() {
        let view = |space: &str, name: &str| {
            format!(
                "FlatView #0\n AS \"other\", root: bus\n AS \"{space}\", root: x\n \
                 Root memory region: x\n  0000000000000000-00000000000000ff (prio 0, i/o): {name}\n"
            )
        };
        let text = [
            view("virtio-blk-pci", "bus master"),
            view("memory", "first"),
            view("memory", "second"),
            view("I/O", "port"),
        ];
        let map = parse(&text.concat());
        assert_eq!(map.device_at_memory(0), Some("first"));
        assert_eq!(map.device_at_port(0), Some("port"));
        assert!(parse("unknown command: 'info mtree'").is_empty());
    }

    #[test]
    fn a_hostile_text_is_cut_cleaned_and_kept_in_order() {
        let mut text = String::from("FlatView #0\n AS \"memory\", root: system\n");
        for index in 0..RANGES_MAX as u64 + 10 {
            let (first, last) = (index * 16, index * 16 + 15);
            let name = format!("\u{1b}[2J{}", "x".repeat(200));
            text += &format!("  {first:016x}-{last:016x} (prio 0, i/o): {name}\n");
        }
        text += "  0000000000000000-ffffffffffffffff (prio 0, i/o): everything\n";
        text += "  +000000000000000-ffffffffffffffff (prio 0, i/o): signed\n";
        text += "  00000000000000000000-f (prio 0, i/o): long\n";
        let map = parse(&text);
        assert_eq!(map.memory.len(), RANGES_MAX);
        let name = map.device_at_memory(17).expect("the second");
        assert_eq!(name, format!("?[2J{}", "x".repeat(NAME_LETTERS_MAX - 4)));
        assert_eq!(map.device_at_memory(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(FlatView #|AS \"memory\", root: |[0-9a-f]{1,17}-[0-9a-f]{1,17} \\(prio 0, i/o\\): |[\\PC\n]){0,60}") {
            let map = parse(&text);
            prop_assert!(map.memory.is_sorted_by_key(|range| range.first));
        }

        /// Ranges in any order and overlap: each address has the device of the first range that has
        /// it among those that were kept.
        #[test]
        fn addresses_are_found_in_their_ranges(
            ranges in proptest::collection::vec((0_u64..60, 0_u64..8), 0..20),
        ) {
            let mut text = String::from("FlatView #0\n AS \"memory\", root: system\n");
            for (index, (first, size)) in ranges.iter().enumerate() {
                text += &format!("  {first:016x}-{:016x} (prio 0, i/o): d{index}\n", first + size);
            }
            let map = parse(&text);
            for address in 0..70 {
                let by_hand = map.memory.iter()
                    .find(|range| range.first <= address && address <= range.last)
                    .map(|range| range.name.as_str());
                prop_assert_eq!(map.device_at_memory(address), by_hand);
            }
        }
    }
}
