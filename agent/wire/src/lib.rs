//! What a guest agent and its collector say to each other.
//!
//! This crate knows the bytes on the socket and nothing else: no I/O, no clock, no dependency. A
//! connection carries [`HostFrame`]s one way and [`GuestFrame`]s the other, over any reliable byte
//! stream (AF_VSOCK, a hybrid Unix socket, a virtio-serial port).
//!
//! ```text
//! agent                                   collector
//!   | -- Hello ---------------------------> |   who I am, which protocol I speak
//!   | <--------------------------- Plan --- |   what to run (JSON, see vslice_spec::workload)
//!   | -- Ready ---------------------------> |   file checked, clock chosen
//!   | <-- Ping ... Pong ------------------> |   the clock exchange; every Ping renews the lease
//!   | -- HostTime ------------------------> |   beside a Pong, where KVM tells the host's clock
//!   | <-------------------------- Start --- |
//!   | -- Requests, Dropped, Hogs, HogGaps > |
//!   | -- Observed ------------------------> |   of a plan that observes; its disks before Ready
//!   | <-- Ping ... Pong ------------------> |
//!   | -- Done ----------------------------> |
//!   | <-- Ping ... Pong ------------------> |   the exchange that closes the clock map
//!   | <---------------------------- Bye --- |   the agent ends; as init it powers the guest off
//! ```
//!
//! # Bytes
//!
//! ```text
//! frame    := length:u32  kind:u8  payload          length counts kind and payload
//! string   := length:u16  length bytes of UTF-8
//! varint   := LEB128 of a u64, see leb128.rs
//! zigzag   := varint of a signed value: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
//! ```
//!
//! Integers are little-endian and of fixed width where a frame is rare, or, as ping and pong, must
//! always take the same number of bytes; [`GuestFrame::Requests`] is a block of columns made of
//! varints. The layout of each frame stands where it is encoded, in `guest.rs`, `host.rs`,
//! `block.rs` and `observed_bytes.rs`. Every length and every count is checked against a bound before anything is
//! allocated, so that whatever a peer sends costs at most [`FRAME_BYTES_MAX`] bytes of buffer and
//! one frame's values.
#![forbid(unsafe_code)]

mod block;
mod bytes;
mod error;
mod frame;
mod framing;
mod guest;
mod host;
pub mod leb128;
mod observed;
mod observed_bytes;

pub use error::{DecodeError, EncodeError};
pub use frame::{
    ClockKind, Done, DoneReason, Dropped, GuestDisk, GuestFrame, GuestTicks, Hello, HogCount,
    HogGap, HogGaps, HostFrame, HostTime, Notice, Ping, Pong, Ready, Request, Severity,
};
pub use framing::{Deframer, Frame};
pub use observed::{
    BlockOperation, CompletionVcpu, Observed, ObservedBlock, ObservedCost, ObservedDevice,
    ObservedEnd, ObservedFlags, ObservedHidden, ObservedIssue, ObservedOthers, ObservedRequest,
    ObservedTask, ObservedUnderWay,
};

/// The version of the protocol that this crate speaks; a collector refuses any other in `Hello`.
///
/// The layout of `Hello` is the same in every version, so that a mismatch can always be told.
pub const PROTOCOL_VERSION: u16 = 6;

/// What an agent says of [`PROTOCOL_VERSION`] in `--version`, so that it is in its file as well: who
/// uploads one can tell before that it is an agent, and which protocol it speaks.
#[macro_export]
macro_rules! protocol_mark {
    () => {
        "(vslice protocol 6)"
    };
}

/// What a frame's length field may say at most: its kind and payload in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Requests in one [`GuestFrame::Requests`] at most: so many that a block of requests which share
/// nothing (45 bytes each) still fits [`FRAME_BYTES_MAX`].
pub const BLOCK_REQUESTS_MAX: usize = 1024;

/// Hogs in one [`GuestFrame::Hogs`] at most.
pub const HOGS_MAX: usize = 4096;

/// Gaps in one [`GuestFrame::HogGaps`] at most: at 20 bytes each they fit [`FRAME_BYTES_MAX`].
pub const HOG_GAPS_MAX: usize = 1024;

/// Observed requests in one [`ObservedBlock`] at most: so many that requests which share nothing (80
/// bytes each) still fit [`FRAME_BYTES_MAX`].
pub const OBSERVED_MAX: usize = 512;

/// Disks in one [`Observed::Devices`] at most: with the longest names 1,055 bytes each.
pub const OBSERVED_DEVICES_MAX: usize = 32;

/// Tasks in one [`Observed::Tasks`] at most: with the longest names 524 bytes each.
pub const OBSERVED_TASKS_MAX: usize = 64;

/// Counts in one [`Observed::Others`] at most: 34 bytes each.
pub const OBSERVED_OTHERS_MAX: usize = 1024;

/// Rows in one [`ObservedEnd`] at most: 51 bytes each.
pub const OBSERVED_UNDER_WAY_MAX: usize = 1024;

/// The JSON of a [`HostFrame::Plan`] in bytes at most.
pub const PLAN_BYTES_MAX: usize = 48 * 1024;

/// A version, a kernel release, a serial number, a title, or the name of a disk, task, clock source or
/// scheduler in bytes at most.
pub const NAME_BYTES_MAX: usize = 255;

/// The target in [`Ready`] in bytes at most: Linux's PATH_MAX.
pub const TARGET_BYTES_MAX: usize = 4096;

/// How the [`Notice`] of an agent begins that cannot observe its guest; after a colon it says why.
pub const NOT_OBSERVED: &str = "the guest's own requests are not observed";

/// The text of a [`Notice`] in bytes at most; [`Notice::new`] cuts a longer one.
pub const NOTICE_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_names_the_protocol() {
        assert_eq!(protocol_mark!(), format!("(vslice protocol {PROTOCOL_VERSION})"));
    }
}
