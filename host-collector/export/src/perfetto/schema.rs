//! The numbers of the fields that are written, as google/perfetto has them below `protos/perfetto` (v59).
//!
//! Each module is a message, and each name that of a field there. Perfetto's own descriptors are held against all of it
//! in `tests/perfetto_readers.rs`.

/// `Trace`.
pub(super) mod trace {
    pub(in super::super) const PACKET: u32 = 1;
}

/// `TracePacket`.
pub(super) mod packet {
    pub(in super::super) const FTRACE_EVENTS: u32 = 1;
    pub(in super::super) const PROCESS_TREE: u32 = 2;
    pub(in super::super) const CLOCK_SNAPSHOT: u32 = 6;
    pub(in super::super) const TIMESTAMP: u32 = 8;
    pub(in super::super) const TRUSTED_PACKET_SEQUENCE_ID: u32 = 10;
    pub(in super::super) const TRACK_EVENT: u32 = 11;
    pub(in super::super) const INTERNED_DATA: u32 = 12;
    pub(in super::super) const SEQUENCE_FLAGS: u32 = 13;
    pub(in super::super) const SYSTEM_INFO: u32 = 45;
    pub(in super::super) const COMPRESSED_PACKETS: u32 = 50;
    pub(in super::super) const TIMESTAMP_CLOCK_ID: u32 = 58;
    pub(in super::super) const TRACE_PACKET_DEFAULTS: u32 = 59;
    pub(in super::super) const TRACK_DESCRIPTOR: u32 = 60;
    pub(in super::super) const FIRST_PACKET_ON_SEQUENCE: u32 = 87;

    /// `SEQ_INCREMENTAL_STATE_CLEARED` and `SEQ_NEEDS_INCREMENTAL_STATE` of `SequenceFlags`.
    pub(in super::super) const STATE_CLEARED: u64 = 1;
    pub(in super::super) const NEEDS_STATE: u64 = 2;
}

/// `TracePacketDefaults`; `TrackEventDefaults` has the numbers of [`event`].
pub(super) mod defaults {
    pub(in super::super) const TRACK_EVENT_DEFAULTS: u32 = 11;
    pub(in super::super) const TIMESTAMP_CLOCK_ID: u32 = 58;
}

/// `ClockSnapshot`, its `Clock`, and `BuiltinClock`.
pub(super) mod clock {
    pub(in super::super) const CLOCKS: u32 = 1;
    pub(in super::super) const PRIMARY_TRACE_CLOCK: u32 = 2;
    pub(in super::super) const CLOCK_ID: u32 = 1;
    pub(in super::super) const TIMESTAMP: u32 = 2;
    pub(in super::super) const IS_INCREMENTAL: u32 = 3;
    pub(in super::super) const MONOTONIC_RAW: u64 = 5;
}

/// `SystemInfo` and its `Utsname`.
pub(super) mod system {
    pub(in super::super) const UTSNAME: u32 = 1;
    pub(in super::super) const SYSNAME: u32 = 1;
    pub(in super::super) const RELEASE: u32 = 3;
}

/// `ProcessTree`, its `Process` and its `Thread`.
pub(super) mod tree {
    pub(in super::super) const PROCESSES: u32 = 1;
    pub(in super::super) const THREADS: u32 = 2;
    pub(in super::super) const PID: u32 = 1;
    pub(in super::super) const PPID: u32 = 2;
    pub(in super::super) const CMDLINE: u32 = 3;
    pub(in super::super) const TID: u32 = 1;
    pub(in super::super) const NAME: u32 = 2;
    pub(in super::super) const TGID: u32 = 3;
}

/// `FtraceEventBundle`, and `FtraceClock`.
pub(super) mod bundle {
    pub(in super::super) const CPU: u32 = 1;
    pub(in super::super) const EVENT: u32 = 2;
    pub(in super::super) const LOST_EVENTS: u32 = 3;
    pub(in super::super) const COMPACT_SCHED: u32 = 4;
    pub(in super::super) const FTRACE_CLOCK: u32 = 5;
    pub(in super::super) const MONO_RAW: u64 = 4;
}

/// `FtraceEventBundle.CompactSched`.
pub(super) mod compact {
    pub(in super::super) const SWITCH_TIMESTAMP: u32 = 1;
    pub(in super::super) const SWITCH_PREV_STATE: u32 = 2;
    pub(in super::super) const SWITCH_NEXT_PID: u32 = 3;
    pub(in super::super) const SWITCH_NEXT_PRIO: u32 = 4;
    pub(in super::super) const INTERN_TABLE: u32 = 5;
    pub(in super::super) const SWITCH_NEXT_COMM_INDEX: u32 = 6;
    pub(in super::super) const WAKING_TIMESTAMP: u32 = 7;
    pub(in super::super) const WAKING_PID: u32 = 8;
    pub(in super::super) const WAKING_TARGET_CPU: u32 = 9;
    pub(in super::super) const WAKING_PRIO: u32 = 10;
    pub(in super::super) const WAKING_COMM_INDEX: u32 = 11;
}

/// `FtraceEvent`, and its `sched_switch`, `sched_waking` and `task_newtask`.
pub(super) mod ftrace {
    pub(in super::super) const TIMESTAMP: u32 = 1;
    pub(in super::super) const PID: u32 = 2;
    pub(in super::super) const SCHED_SWITCH: u32 = 4;
    pub(in super::super) const SCHED_WAKING: u32 = 20;
    pub(in super::super) const TASK_NEWTASK: u32 = 235;

    pub(in super::super) const SWITCH_PREV_COMM: u32 = 1;
    pub(in super::super) const SWITCH_PREV_PID: u32 = 2;
    pub(in super::super) const SWITCH_PREV_PRIO: u32 = 3;
    pub(in super::super) const SWITCH_PREV_STATE: u32 = 4;
    pub(in super::super) const SWITCH_NEXT_COMM: u32 = 5;
    pub(in super::super) const SWITCH_NEXT_PID: u32 = 6;
    pub(in super::super) const SWITCH_NEXT_PRIO: u32 = 7;

    pub(in super::super) const WAKING_COMM: u32 = 1;
    pub(in super::super) const WAKING_PID: u32 = 2;
    pub(in super::super) const WAKING_PRIO: u32 = 3;
    pub(in super::super) const WAKING_TARGET_CPU: u32 = 5;

    pub(in super::super) const NEWTASK_PID: u32 = 1;
    pub(in super::super) const NEWTASK_COMM: u32 = 2;
    pub(in super::super) const NEWTASK_CLONE_FLAGS: u32 = 3;
}

/// `TrackDescriptor`, its `ProcessDescriptor` and its `ThreadDescriptor`.
pub(super) mod track {
    pub(in super::super) const UUID: u32 = 1;
    pub(in super::super) const NAME: u32 = 2;
    pub(in super::super) const PROCESS: u32 = 3;
    pub(in super::super) const THREAD: u32 = 4;
    pub(in super::super) const PARENT_UUID: u32 = 5;
    pub(in super::super) const CHILD_ORDERING: u32 = 11;
    pub(in super::super) const SIBLING_ORDER_RANK: u32 = 12;
    pub(in super::super) const DESCRIPTION: u32 = 14;

    /// `EXPLICIT` of `ChildTracksOrdering`.
    pub(in super::super) const EXPLICIT: u64 = 3;

    pub(in super::super) const PROCESS_PID: u32 = 1;
    pub(in super::super) const PROCESS_NAME: u32 = 6;

    pub(in super::super) const THREAD_PID: u32 = 1;
    pub(in super::super) const THREAD_TID: u32 = 2;
    pub(in super::super) const THREAD_NAME: u32 = 5;
}

/// `TrackEvent`.
pub(super) mod event {
    pub(in super::super) const CATEGORY_IIDS: u32 = 3;
    pub(in super::super) const DEBUG_ANNOTATIONS: u32 = 4;
    pub(in super::super) const TYPE: u32 = 9;
    pub(in super::super) const NAME_IID: u32 = 10;
    pub(in super::super) const TRACK_UUID: u32 = 11;
    pub(in super::super) const CATEGORIES: u32 = 22;
    pub(in super::super) const NAME: u32 = 23;
    pub(in super::super) const FLOW_IDS: u32 = 47;
    pub(in super::super) const TERMINATING_FLOW_IDS: u32 = 48;
}

/// `DebugAnnotation`.
pub(super) mod annotation {
    pub(in super::super) const NAME_IID: u32 = 1;
    pub(in super::super) const BOOL_VALUE: u32 = 2;
    pub(in super::super) const UINT_VALUE: u32 = 3;
    pub(in super::super) const INT_VALUE: u32 = 4;
    pub(in super::super) const STRING_VALUE: u32 = 6;
    pub(in super::super) const POINTER_VALUE: u32 = 7;
    pub(in super::super) const NAME: u32 = 10;
    pub(in super::super) const DICT_ENTRIES: u32 = 11;
    pub(in super::super) const ARRAY_VALUES: u32 = 12;
    pub(in super::super) const STRING_VALUE_IID: u32 = 17;
}

/// `InternedData`, and its `EventCategory`, `EventName`, `DebugAnnotationName` and `InternedString`, which are alike.
pub(super) mod interned {
    pub(in super::super) const EVENT_CATEGORIES: u32 = 1;
    pub(in super::super) const EVENT_NAMES: u32 = 2;
    pub(in super::super) const DEBUG_ANNOTATION_NAMES: u32 = 3;
    pub(in super::super) const DEBUG_ANNOTATION_STRING_VALUES: u32 = 29;

    pub(in super::super) const IID: u32 = 1;
    /// `name`, and `str` of `InternedString`, which is `bytes`.
    pub(in super::super) const TEXT: u32 = 2;
}
