//! What is measured of a reader.

use std::fmt;
use vslice_spec::Engine;

/// One thing that vslice's reader and fio do in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Recording requests that are not made.
    Record,
    /// Reading with this engine, with so many requests in flight.
    Read { engine: Engine, depth: u16 },
}

/// In the order of the table.
pub(crate) const ALL: [Task; 3] = [
    Task::Record,
    Task::Read { engine: Engine::Psync, depth: 1 },
    Task::Read { engine: Engine::IoUring, depth: 32 },
];

/// The size of a read.
pub(crate) const BLOCK_BYTES: u32 = 4096;

impl Task {
    /// What vslice sets itself.
    pub(crate) fn goal(self) -> &'static str {
        match self {
            Task::Record => "35 ns",
            Task::Read { engine: Engine::Psync, .. } => "1.00",
            Task::Read { engine: Engine::IoUring, .. } => "1.20",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Record => formatter.pad("record a request, ns"),
            Task::Read { engine: Engine::Psync, .. } => formatter.pad("psync, requests a second"),
            Task::Read { engine: Engine::IoUring, depth } => {
                formatter.pad(&format!("io_uring depth {depth}, requests a second"))
            }
        }
    }
}
