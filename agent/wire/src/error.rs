//! Why bytes are not a frame, and why a frame cannot become bytes.

use std::fmt;

/// Why bytes from a peer are not a frame. The connection is of no use after it: where the next
/// frame would begin is unknown, or the peer speaks another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A frame's length is 0 or above the bound.
    FrameLength {
        /// What the length field says.
        length_bytes: usize,
        /// The bound.
        max_bytes: usize,
    },
    /// No frame of this direction has this kind.
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The frame ends within a field.
    Truncated {
        /// What the field needs.
        needed_bytes: usize,
        /// What is left of the frame.
        left_bytes: usize,
    },
    /// The frame goes on after its last field.
    TrailingBytes {
        /// So far.
        count: usize,
    },
    /// A count or a length is above its bound.
    TooMany {
        /// Of what.
        what: &'static str,
        /// What the frame says.
        count: u64,
        /// The bound.
        max_count: usize,
    },
    /// A text is not UTF-8.
    NotUtf8 {
        /// Which text.
        what: &'static str,
        /// So many of its bytes are good.
        valid_bytes: usize,
    },
    /// A byte that selects one of a few cases selects none of them.
    UnknownCase {
        /// Of what.
        what: &'static str,
        /// The byte.
        value: u8,
    },
    /// A varint does not fit 64 bits.
    VarintTooLong,
    /// A varint does not fit its field.
    OutOfRange {
        /// Which field.
        what: &'static str,
        /// The varint, with zigzag undone and taken as unsigned.
        value: u64,
    },
    /// A run in a column is empty or longer than what is left of the block.
    RunLength {
        /// Which column.
        column: &'static str,
        /// The run's length.
        run_count: u64,
        /// Requests of the block that the column's earlier runs leave.
        left_count: usize,
    },
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::FrameLength { length_bytes, max_bytes } => {
                write!(f, "a frame of {length_bytes} bytes, not in [1, {max_bytes}]")
            }
            Self::UnknownKind { kind } => write!(f, "no frame is of kind {kind:#04x}"),
            Self::Truncated { needed_bytes, left_bytes } => write!(
                f,
                "the frame ends within a field: {needed_bytes} bytes needed, {left_bytes} left"
            ),
            Self::TrailingBytes { count } => {
                write!(f, "{count} bytes after the frame's last field")
            }
            Self::TooMany { what, count, max_count } => {
                write!(f, "{count} {what}, at most {max_count} allowed")
            }
            Self::NotUtf8 { what, valid_bytes } => {
                write!(f, "the {what} are not UTF-8 after {valid_bytes} bytes")
            }
            Self::UnknownCase { what, value } => write!(f, "no {what} has number {value}"),
            Self::VarintTooLong => write!(f, "a varint of more than 64 bits"),
            Self::OutOfRange { what, value } => write!(f, "{value} is out of range for a {what}"),
            Self::RunLength { column, run_count, left_count } => write!(
                f,
                "a run of {run_count} in the column {column}, where {left_count} requests are left"
            ),
        }
    }
}

impl std::error::Error for DecodeError {}

/// Why a frame cannot be encoded: its maker put more into it than the protocol allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A count or a length is above its bound.
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The bound.
        max_count: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::TooMany { what, count, max_count } => {
                write!(f, "{count} {what} in one frame, at most {max_count} allowed")
            }
        }
    }
}

impl std::error::Error for EncodeError {}
