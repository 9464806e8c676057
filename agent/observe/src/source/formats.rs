//! The tracepoints of the block layer, and where their fields lie on the kernel that runs. Pure.

use crate::event::{BlockTraceKind, Rwbs};
use vslice_perf::format::{Field, Format};

/// One of the block layer's tracepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tracepoint {
    Queue,
    Remap,
    Refused,
    Issue,
    Requeue,
    Complete,
}

impl Tracepoint {
    pub(super) const ALL: [Tracepoint; 6] = [
        Tracepoint::Queue,
        Tracepoint::Remap,
        Tracepoint::Refused,
        Tracepoint::Issue,
        Tracepoint::Requeue,
        Tracepoint::Complete,
    ];

    /// Group and name, as tracefs has them.
    pub(super) fn name(self) -> &'static str {
        match self {
            Tracepoint::Queue => "block/block_bio_queue",
            Tracepoint::Remap => "block/block_bio_remap",
            Tracepoint::Refused => "block/block_bio_complete",
            Tracepoint::Issue => "block/block_rq_issue",
            Tracepoint::Requeue => "block/block_rq_requeue",
            Tracepoint::Complete => "block/block_rq_complete",
        }
    }

    /// What is not known where a kernel lacks it; `None`: nothing is known.
    pub(super) fn goes_without(self) -> Option<&'static str> {
        match self {
            Tracepoint::Queue | Tracepoint::Issue | Tracepoint::Complete => None,
            Tracepoint::Remap => Some("who asked for what an md array sends on is not known"),
            Tracepoint::Refused => Some(
                "what was refused for want of a tag may be taken for what was asked for after it",
            ),
            Tracepoint::Requeue => Some("what a driver gave back is not marked"),
        }
    }

    /// What its records are filtered by, beside the disk.
    pub(super) fn condition(self) -> Option<&'static str> {
        // All others are told by the requests that they are part of.
        (self == Tracepoint::Refused).then_some("error!=0")
    }

    fn error(self) -> Option<&'static str> {
        matches!(self, Tracepoint::Complete | Tracepoint::Refused).then_some("error")
    }

    /// Device and sector before.
    fn old(self) -> Option<[&'static str; 2]> {
        (self == Tracepoint::Remap).then_some(["old_dev", "old_sector"])
    }

    fn comm(self) -> Option<&'static str> {
        (self == Tracepoint::Queue).then_some("comm")
    }
}

/// What a record says of a block layer's event, but for when, where and who.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said<'a> {
    /// In the kernel's own form: the major number in bits 20 and above.
    pub(super) dev: u32,
    pub(super) kind: BlockTraceKind,
    pub(super) sector: u64,
    pub(super) sectors: u32,
    pub(super) rwbs: Rwbs,
    /// Device and sector before, of what is sent on.
    pub(super) old: Option<(u32, u64)>,
    /// The thread's name, which ends at its first zero; of some kinds only.
    pub(super) comm: Option<&'a [u8]>,
}

/// Where one tracepoint has its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TraceFormat {
    pub(super) tracepoint: Tracepoint,
    pub(super) id: u16,
    /// At the same place in every tracepoint's record.
    common_type: Field,
    dev: Field,
    sector: Field,
    sectors: Field,
    error: Option<Field>,
    rwbs: Field,
    old: Option<[Field; 2]>,
    comm: Option<Field>,
}

impl TraceFormat {
    /// From the text of the `format` file; the error says what is missing.
    pub(super) fn parse(tracepoint: Tracepoint, text: &str) -> Result<TraceFormat, String> {
        let format = Format::new(text);
        let field = |name: Option<&str>| name.map(|name| format.field(name)).transpose();
        Ok(TraceFormat {
            tracepoint,
            id: format.id()?,
            common_type: format.field("common_type")?,
            dev: format.field("dev")?,
            sector: format.field("sector")?,
            sectors: format.field("nr_sector")?,
            error: field(tracepoint.error())?,
            rwbs: format.field("rwbs")?,
            old: match tracepoint.old() {
                Some([dev, sector]) => Some([format.field(dev)?, format.field(sector)?]),
                None => None,
            },
            comm: field(tracepoint.comm())?,
        })
    }

    /// What a record says; `None` where it is too short.
    fn read<'a>(&self, raw: &'a [u8]) -> Option<Said<'a>> {
        let short = |field: Field| u32::try_from(field.number(raw)?).ok();
        let kind = match self.tracepoint {
            Tracepoint::Queue => BlockTraceKind::Queue,
            // Whether it was of the same disk, who knows the disks says.
            Tracepoint::Remap => BlockTraceKind::Remap { from: None },
            Tracepoint::Refused => BlockTraceKind::Refused,
            Tracepoint::Issue => BlockTraceKind::Issue,
            Tracepoint::Requeue => BlockTraceKind::Requeue,
            Tracepoint::Complete => {
                BlockTraceKind::Complete { result: short(self.error?)?.cast_signed() }
            }
        };
        let comm = match self.comm {
            Some(field) => Some(field.bytes(raw)?),
            None => None,
        };
        let old = match self.old {
            Some([dev, sector]) => Some((short(dev)?, sector.number(raw)?)),
            None => None,
        };
        Some(Said {
            dev: short(self.dev)?,
            kind,
            sector: self.sector.number(raw)?,
            sectors: short(self.sectors)?,
            rwbs: Rwbs::of_letters(self.rwbs.bytes(raw)?),
            old,
            comm,
        })
    }
}

/// The formats of all tracepoints that this kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Formats(Vec<TraceFormat>);

impl Formats {
    /// At least one.
    pub(super) fn new(formats: Vec<TraceFormat>) -> Formats {
        Formats(formats)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TraceFormat> {
        self.0.iter()
    }

    /// What a record says; `None` where it is too short, or is of no tracepoint of these.
    pub(super) fn read<'a>(&self, raw: &'a [u8]) -> Option<Said<'a>> {
        self.format_of(raw)?.read(raw)
    }

    /// Whose record it is; `None` as above.
    pub(super) fn tracepoint_of(&self, raw: &[u8]) -> Option<Tracepoint> {
        Some(self.format_of(raw)?.tracepoint)
    }

    fn format_of(&self, raw: &[u8]) -> Option<&TraceFormat> {
        let id = self.0.first()?.common_type.number(raw)?;
        self.0.iter().find(|format| u64::from(format.id) == id)
    }
}

#[cfg(test)]
#[path = "formats_tests.rs"]
pub(super) mod tests;
