#![expect(clippy::host_endian_bytes, reason = "the tests write as the kernel does")]

use super::*;
use vslice_wire::BlockOperation;

/// As kernels print them, see the README of the fixtures.
pub(in crate::source) const KERNELS: [(&str, &str); 6] = [
    ("5.10", include_str!("../../tests/fixtures/block-5.10.formats")),
    ("6.1", include_str!("../../tests/fixtures/block-6.1.formats")),
    ("6.1-rt", include_str!("../../tests/fixtures/block-6.1-rt.formats")),
    ("6.12", include_str!("../../tests/fixtures/block-6.12.formats")),
    ("6.18", include_str!("../../tests/fixtures/block-6.18.formats")),
    ("7.3", include_str!("../../tests/fixtures/block-7.3.formats")),
];

/// All formats of one kernel.
pub(in crate::source) fn formats(kernel: &str) -> Formats {
    let parsed = Tracepoint::ALL.map(|tracepoint| {
        let name = tracepoint.name().strip_prefix("block/").unwrap();
        let texts = kernel.split("name: ");
        let text = texts.clone().find(|text| text.lines().next() == Some(name));
        TraceFormat::parse(tracepoint, text.unwrap_or_else(|| panic!("no {name}"))).unwrap()
    });
    Formats::new(parsed.into())
}

/// A record of one of these, by the formats of a kernel that has all fields.
pub(in crate::source) fn record_of(formats: &Formats, tracepoint: Tracepoint, dev: u32) -> Vec<u8> {
    record(&format_of(formats, tracepoint), dev, 64, 8, 0, b"R")
}

fn format_of(formats: &Formats, tracepoint: Tracepoint) -> TraceFormat {
    formats.iter().find(|format| format.tracepoint == tracepoint).unwrap().clone()
}

/// A record as the kernel writes it: each field at its place.
fn record(
    format: &TraceFormat,
    dev: u32,
    sector: u64,
    sectors: u32,
    error: i32,
    rwbs: &[u8],
) -> Vec<u8> {
    let mut raw = vec![0xee; 80];
    let mut put = |field: Field, bytes: &[u8]| {
        let room = &mut raw[field.offset()..field.offset() + field.size()];
        room.fill(0);
        room[..bytes.len()].copy_from_slice(bytes);
    };
    put(format.common_type, &format.id.to_ne_bytes());
    put(format.dev, &dev.to_ne_bytes());
    put(format.sector, &sector.to_ne_bytes());
    put(format.sectors, &sectors.to_ne_bytes());
    format.error.into_iter().for_each(|field| put(field, &error.to_ne_bytes()));
    put(format.rwbs, rwbs);
    if let Some([dev, sector]) = format.old {
        put(dev, &7_u32.to_ne_bytes());
        put(sector, &9_u64.to_ne_bytes());
    }
    format.comm.into_iter().for_each(|field| put(field, b"postgres"));
    raw
}

#[test]
fn each_kernels_records_are_read_by_its_own_formats() {
    for (kernel, text) in KERNELS {
        let formats = formats(text);
        for format in formats.iter() {
            let raw = record(format, 254 << 20 | 1, 2048, 8, -5, b"WFS");
            let said = formats.read(&raw).unwrap_or_else(|| panic!("{kernel}: {format:?}"));
            assert_eq!((said.dev, said.sector), (254 << 20 | 1, 2048), "{kernel}");
            assert_eq!(formats.tracepoint_of(&raw), Some(format.tracepoint), "{kernel}");
            assert_eq!(said.rwbs.operation, BlockOperation::Write, "{kernel}");
            let kind = match format.tracepoint {
                Tracepoint::Queue => BlockTraceKind::Queue,
                Tracepoint::Remap => BlockTraceKind::Remap { from: None },
                Tracepoint::Refused => BlockTraceKind::Refused,
                Tracepoint::Issue => BlockTraceKind::Issue,
                Tracepoint::Requeue => BlockTraceKind::Requeue,
                Tracepoint::Complete => BlockTraceKind::Complete { result: -5 },
            };
            assert_eq!(said.kind, kind, "{kernel}");
            assert_eq!(said.sectors, 8, "{kernel}");
            let old = (format.tracepoint == Tracepoint::Remap).then_some((7, 9));
            assert_eq!(said.old, old, "{kernel}");
            let is_queue = kind == BlockTraceKind::Queue;
            assert_eq!(said.comm.is_some_and(|comm| comm.starts_with(b"postgres\0")), is_queue);
        }
    }
}

#[test]
fn a_record_that_is_short_or_of_nobody_is_none() {
    let formats = formats(KERNELS[5].1);
    let raw = record(&format_of(&formats, Tracepoint::Complete), 1, 2, 3, 0, b"R");
    for length in 0..34 {
        assert_eq!(formats.read(&raw[..length]), None, "{length}");
    }
    let mut strange = raw.clone();
    strange[..2].fill(0xff);
    assert_eq!(formats.read(&strange), None);
    assert_eq!(formats.tracepoint_of(&strange), None);
    assert!(formats.read(&raw).is_some());
}

#[test]
fn a_format_without_a_field_says_which() {
    let renamed = KERNELS[0].1.replace("nr_sector;", "sectors;");
    let missing = TraceFormat::parse(Tracepoint::Issue, &renamed).unwrap_err();
    assert_eq!(missing, "no field nr_sector");
}
