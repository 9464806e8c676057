//! Reads traces, for tests.

/// A field as it is written, which says little of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message.
pub(super) fn fields(mut bytes: &[u8]) -> Vec<(u32, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (value, rest) = bytes.split_first_chunk().expect("eight bytes");
                bytes = rest;
                Field::Number(u64::from_le_bytes(*value))
            }
            2 => {
                let length = usize::try_from(varint(&mut bytes)).unwrap();
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(value)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((u32::try_from(tag >> 3).unwrap(), value));
    }
    fields
}

pub(super) fn varint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first().expect("a varint's end");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// What a field is.
#[derive(Debug, Clone, Copy)]
enum Is {
    Number,
    Signed,
    Text,
    Packed,
    Message(&'static str),
}

/// A message, and its fields by number and name.
type Known = (&'static str, &'static [(u32, &'static str, Is)]);

/// The fields of each message that is written, by the names that Perfetto gives them.
const FIELDS: &[Known] = &[
    ("Trace", &[(1, "packet", Is::Message("Packet"))]),
    (
        "Packet",
        &[
            (1, "ftrace_events", Is::Message("Bundle")),
            (2, "process_tree", Is::Message("Tree")),
            (6, "clock_snapshot", Is::Message("Snapshot")),
            (8, "timestamp", Is::Number),
            (10, "trusted_packet_sequence_id", Is::Number),
            (11, "track_event", Is::Message("Event")),
            (12, "interned_data", Is::Message("Interned")),
            (13, "sequence_flags", Is::Number),
            (45, "system_info", Is::Message("System")),
            (58, "timestamp_clock_id", Is::Number),
            (59, "trace_packet_defaults", Is::Message("Defaults")),
            (60, "track_descriptor", Is::Message("Track")),
            (87, "first_packet_on_sequence", Is::Number),
        ],
    ),
    (
        "Defaults",
        &[
            (11, "track_event_defaults", Is::Message("Event")),
            (58, "timestamp_clock_id", Is::Number),
        ],
    ),
    ("Snapshot", &[(1, "clocks", Is::Message("Clock")), (2, "primary_trace_clock", Is::Number)]),
    (
        "Clock",
        &[
            (1, "clock_id", Is::Number),
            (2, "timestamp", Is::Number),
            (3, "is_incremental", Is::Number),
        ],
    ),
    ("System", &[(1, "utsname", Is::Message("Utsname"))]),
    ("Utsname", &[(1, "sysname", Is::Text), (3, "release", Is::Text)]),
    ("Tree", &[(1, "processes", Is::Message("Process")), (2, "threads", Is::Message("Thread"))]),
    ("Process", &[(1, "pid", Is::Number), (2, "ppid", Is::Number), (3, "cmdline", Is::Text)]),
    ("Thread", &[(1, "tid", Is::Number), (2, "name", Is::Text), (3, "tgid", Is::Number)]),
    (
        "Bundle",
        &[
            (1, "cpu", Is::Number),
            (2, "event", Is::Message("Ftrace")),
            (3, "lost_events", Is::Number),
            (4, "compact_sched", Is::Message("Compact")),
            (5, "ftrace_clock", Is::Number),
        ],
    ),
    (
        "Compact",
        &[
            (1, "switch_timestamp", Is::Packed),
            (2, "switch_prev_state", Is::Packed),
            (3, "switch_next_pid", Is::Packed),
            (4, "switch_next_prio", Is::Packed),
            (5, "intern_table", Is::Text),
            (6, "switch_next_comm_index", Is::Packed),
            (7, "waking_timestamp", Is::Packed),
            (8, "waking_pid", Is::Packed),
            (9, "waking_target_cpu", Is::Packed),
            (10, "waking_prio", Is::Packed),
            (11, "waking_comm_index", Is::Packed),
        ],
    ),
    (
        "Ftrace",
        &[
            (1, "timestamp", Is::Number),
            (2, "pid", Is::Number),
            (4, "sched_switch", Is::Message("Switch")),
            (20, "sched_waking", Is::Message("Waking")),
            (235, "task_newtask", Is::Message("Newtask")),
        ],
    ),
    (
        "Switch",
        &[
            (1, "prev_comm", Is::Text),
            (2, "prev_pid", Is::Number),
            (3, "prev_prio", Is::Signed),
            (4, "prev_state", Is::Signed),
            (5, "next_comm", Is::Text),
            (6, "next_pid", Is::Number),
            (7, "next_prio", Is::Signed),
        ],
    ),
    (
        "Waking",
        &[
            (1, "comm", Is::Text),
            (2, "pid", Is::Number),
            (3, "prio", Is::Signed),
            (5, "target_cpu", Is::Number),
        ],
    ),
    ("Newtask", &[(1, "pid", Is::Number), (2, "comm", Is::Text), (3, "clone_flags", Is::Number)]),
    (
        "Track",
        &[
            (1, "uuid", Is::Number),
            (2, "name", Is::Text),
            (3, "process", Is::Message("ProcessTrack")),
            (4, "thread", Is::Message("ThreadTrack")),
            (5, "parent_uuid", Is::Number),
            (11, "child_ordering", Is::Number),
            (12, "sibling_order_rank", Is::Number),
            (14, "description", Is::Text),
        ],
    ),
    ("ProcessTrack", &[(1, "pid", Is::Number), (6, "process_name", Is::Text)]),
    (
        "ThreadTrack",
        &[(1, "pid", Is::Number), (2, "tid", Is::Number), (5, "thread_name", Is::Text)],
    ),
    (
        "Event",
        &[
            (3, "category_iids", Is::Number),
            (4, "debug_annotations", Is::Message("Note")),
            (9, "type", Is::Number),
            (10, "name_iid", Is::Number),
            (11, "track_uuid", Is::Number),
            (22, "categories", Is::Text),
            (23, "name", Is::Text),
            (47, "flow_ids", Is::Number),
            (48, "terminating_flow_ids", Is::Number),
        ],
    ),
    (
        "Note",
        &[
            (1, "name_iid", Is::Number),
            (2, "bool_value", Is::Number),
            (3, "uint_value", Is::Number),
            (4, "int_value", Is::Signed),
            (6, "string_value", Is::Text),
            (7, "pointer_value", Is::Number),
            (10, "name", Is::Text),
            (11, "dict_entries", Is::Message("Note")),
            (12, "array_values", Is::Message("Note")),
            (17, "string_value_iid", Is::Number),
        ],
    ),
    (
        "Interned",
        &[
            (1, "event_categories", Is::Message("Word")),
            (2, "event_names", Is::Message("Word")),
            (3, "debug_annotation_names", Is::Message("Word")),
            (29, "debug_annotation_string_values", Is::Message("Word")),
        ],
    ),
    ("Word", &[(1, "iid", Is::Number), (2, "text", Is::Text)]),
];

/// The packets of a trace, one after the other, as protobuf writes messages for people: one packet a line.
pub(super) fn text(trace: &[u8]) -> String {
    let packets = inflated(trace);
    let lines = fields(&packets).into_iter().map(|(_, packet)| match packet {
        Field::Bytes(bytes) => format!("{}\n", message("Packet", bytes)),
        Field::Number(number) => panic!("{number}"),
    });
    lines.collect()
}

/// The times of the events on tracks, on the host's clock: each sequence but the first counts from its clock's beginning.
pub(super) fn event_times(trace: &[u8]) -> Vec<u64> {
    let number = |of: &[(u32, Field<'_>)], field| {
        of.iter().find_map(|(number, value)| match value {
            Field::Number(value) if *number == field => Some(*value),
            _ => None,
        })
    };
    let inner = |of: &[(u32, Field<'_>)], field| {
        of.iter().find_map(|(number, value)| match value {
            Field::Bytes(bytes) if *number == field => Some(bytes.to_vec()),
            _ => None,
        })
    };
    let (mut now, mut times) = (std::collections::HashMap::new(), Vec::new());
    for (_, packet) in fields(&inflated(trace)) {
        let Field::Bytes(packet) = packet else { panic!("{packet:?}") };
        let packet = fields(packet);
        let now = now.entry(number(&packet, 10).unwrap()).or_insert(0);
        if let Some(snapshot) = inner(&packet, 6) {
            let clock = inner(&fields(&snapshot), 1).unwrap();
            *now = number(&fields(&clock), 2).unwrap();
        } else if inner(&packet, 11).is_some() {
            let timestamp = number(&packet, 8).unwrap();
            let is_absolute = number(&packet, 58).is_some();
            *now = if is_absolute { *now } else { *now + timestamp };
            times.push(if is_absolute { timestamp } else { *now });
        }
    }
    times
}

/// The packets of a trace as they are before they are compressed.
pub(super) fn inflated(trace: &[u8]) -> Vec<u8> {
    let outer = fields(trace).into_iter().map(|(_, packet)| packet);
    let compressed = outer.map(|packet| match packet {
        Field::Bytes(bytes) => match fields(bytes).as_slice() {
            [(50, Field::Bytes(compressed))] => *compressed,
            other => panic!("{other:?}"),
        },
        Field::Number(number) => panic!("{number}"),
    });
    compressed
        .flat_map(|bytes| miniz_oxide::inflate::decompress_to_vec_zlib(bytes).unwrap())
        .collect()
}

fn message(of: &str, bytes: &[u8]) -> String {
    let (_, known) = FIELDS.iter().find(|(name, _)| *name == of).expect("a message");
    let each = fields(bytes).into_iter().map(|(number, value)| {
        let known = known.iter().find(|(field, ..)| *field == number);
        let (_, name, is) = known.unwrap_or_else(|| panic!("{of} has no field {number}"));
        match (is, value) {
            (Is::Number, Field::Number(number)) => format!("{name}: {number}"),
            (Is::Signed, Field::Number(number)) => format!("{name}: {}", number.cast_signed()),
            (Is::Text, Field::Bytes(bytes)) => {
                format!("{name}: {:?}", std::str::from_utf8(bytes).unwrap())
            }
            (Is::Packed, Field::Bytes(bytes)) => format!("{name}: {:?}", numbers(bytes)),
            (Is::Message(inner), Field::Bytes(bytes)) => {
                format!("{name} {{ {} }}", message(inner, bytes))
            }
            (is, value) => panic!("{of}.{name} is {is:?}, not {value:?}"),
        }
    });
    each.collect::<Vec<_>>().join(" ")
}

fn numbers(mut bytes: &[u8]) -> Vec<u64> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes));
    }
    numbers
}
