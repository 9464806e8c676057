//! The bytes of what a guest says.

use crate::block::{put_block, take_block};
use crate::bytes::{Cursor, bound, put_count, put_string, put_u16, put_u64};
use crate::observed_bytes::{put_observed, take_observed};
use crate::{
    ClockKind, DecodeError, Done, DoneReason, Dropped, EncodeError, Frame, GuestDisk, GuestFrame,
    GuestTicks, HOG_GAPS_MAX, HOGS_MAX, Hello, HogCount, HogGap, HogGaps, HostTime, NAME_BYTES_MAX,
    NOTICE_BYTES_MAX, Notice, Pong, Ready, Severity, TARGET_BYTES_MAX, leb128,
};

/// The kinds of a guest's frames lie below 0x80 and those of a host above, so that an end which is
/// connected to its like notices at the first frame.
const HELLO: u8 = 0x01;
const READY: u8 = 0x02;
const PONG: u8 = 0x03;
const REQUESTS: u8 = 0x04;
const DROPPED: u8 = 0x05;
const HOGS: u8 = 0x06;
const NOTICE: u8 = 0x07;
const DONE: u8 = 0x08;
const HOG_GAPS: u8 = 0x09;
const HOST_TIME: u8 = 0x0a;
const OBSERVED: u8 = 0x0b;

impl Frame for GuestFrame {
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Hello(hello) => put_hello(out, hello),
            Self::Ready(ready) => put_ready(out, ready),
            Self::Pong(pong) => {
                put_pong(out, pong);
                Ok(())
            }
            Self::HostTime(told) => {
                put_host_time(out, told);
                Ok(())
            }
            Self::Requests(requests) => {
                out.push(REQUESTS);
                put_block(out, requests)
            }
            Self::Dropped(dropped) => {
                put_dropped(out, dropped);
                Ok(())
            }
            Self::Hogs(hogs) => put_hogs(out, hogs),
            Self::HogGaps(gaps) => put_hog_gaps(out, gaps),
            Self::Observed(observed) => {
                out.push(OBSERVED);
                put_observed(out, observed)
            }
            Self::Notice(notice) => put_notice(out, notice),
            Self::Done(done) => {
                put_done(out, done);
                Ok(())
            }
        }
    }

    fn decode_body(kind: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(payload);
        let frame = match kind {
            HELLO => Self::Hello(take_hello(&mut cursor)?),
            READY => Self::Ready(take_ready(&mut cursor)?),
            PONG => Self::Pong(take_pong(&mut cursor)?),
            HOST_TIME => Self::HostTime(take_host_time(&mut cursor)?),
            REQUESTS => Self::Requests(take_block(&mut cursor)?),
            DROPPED => Self::Dropped(take_dropped(&mut cursor)?),
            HOGS => Self::Hogs(take_hogs(&mut cursor)?),
            HOG_GAPS => Self::HogGaps(take_hog_gaps(&mut cursor)?),
            OBSERVED => Self::Observed(take_observed(&mut cursor)?),
            NOTICE => Self::Notice(take_notice(&mut cursor)?),
            DONE => Self::Done(take_done(&mut cursor)?),
            kind => return Err(DecodeError::UnknownKind { kind }),
        };
        cursor.finish()?;
        Ok(frame)
    }
}

/// ```text
/// 0x01 protocol_version:u16 agent_version:string kernel_release:string vcpu_count:u16
///      tsc_invariant:u8 (0 | 1)
/// ```
/// This layout is for all versions of the protocol.
fn put_hello(out: &mut Vec<u8>, hello: &Hello) -> Result<(), EncodeError> {
    out.push(HELLO);
    put_u16(out, hello.protocol_version);
    put_string(out, "bytes of agent version", &hello.agent_version, NAME_BYTES_MAX)?;
    put_string(out, "bytes of kernel release", &hello.kernel_release, NAME_BYTES_MAX)?;
    put_u16(out, hello.vcpu_count);
    out.push(u8::from(hello.tsc_invariant));
    Ok(())
}

fn take_hello(cursor: &mut Cursor<'_>) -> Result<Hello, DecodeError> {
    Ok(Hello {
        protocol_version: cursor.u16()?,
        agent_version: cursor.string("bytes of agent version", NAME_BYTES_MAX)?,
        kernel_release: cursor.string("bytes of kernel release", NAME_BYTES_MAX)?,
        vcpu_count: cursor.u16()?,
        tsc_invariant: cursor.bool("TSC property")?,
    })
}

/// ```text
/// 0x02 clock:u8 (0 TSC | 1 CLOCK_MONOTONIC_RAW) target:string target_bytes:u64 clock_source:string
///      disk:u8 (0 not known | 1 known, its target has no one place | 2 known, with a place)
///      of 1 and 2: size_bytes:u64 io_scheduler:string
///      of 2:       target_offset_bytes:u64
/// ```
fn put_ready(out: &mut Vec<u8>, ready: &Ready) -> Result<(), EncodeError> {
    out.push(READY);
    out.push(match ready.clock {
        ClockKind::Tsc => 0,
        ClockKind::MonotonicRaw => 1,
    });
    put_string(out, "bytes of target", &ready.target, TARGET_BYTES_MAX)?;
    put_u64(out, ready.target_bytes);
    put_string(out, "bytes of clock source", &ready.clock_source, NAME_BYTES_MAX)?;
    let Some(disk) = &ready.disk else {
        out.push(0);
        return Ok(());
    };
    out.push(if disk.target_offset_bytes.is_some() { 2 } else { 1 });
    put_u64(out, disk.size_bytes);
    put_string(out, "bytes of I/O scheduler", &disk.io_scheduler, NAME_BYTES_MAX)?;
    if let Some(offset_bytes) = disk.target_offset_bytes {
        put_u64(out, offset_bytes);
    }
    Ok(())
}

fn take_ready(cursor: &mut Cursor<'_>) -> Result<Ready, DecodeError> {
    Ok(Ready {
        clock: match cursor.u8()? {
            0 => ClockKind::Tsc,
            1 => ClockKind::MonotonicRaw,
            value => return Err(DecodeError::UnknownCase { what: "clock", value }),
        },
        target: cursor.string("bytes of target", TARGET_BYTES_MAX)?,
        target_bytes: cursor.u64()?,
        clock_source: cursor.string("bytes of clock source", NAME_BYTES_MAX)?,
        disk: match cursor.u8()? {
            0 => None,
            case @ (1 | 2) => Some(GuestDisk {
                size_bytes: cursor.u64()?,
                io_scheduler: cursor.string("bytes of I/O scheduler", NAME_BYTES_MAX)?,
                target_offset_bytes: if case == 2 { Some(cursor.u64()?) } else { None },
            }),
            value => return Err(DecodeError::UnknownCase { what: "disk", value }),
        },
    })
}

/// ```text
/// 0x03 id:u64 vcpu:u16 received:u64 sent:u64
/// ```
fn put_pong(out: &mut Vec<u8>, pong: &Pong) {
    out.push(PONG);
    put_u64(out, pong.id);
    put_u16(out, pong.vcpu);
    put_u64(out, pong.received.0);
    put_u64(out, pong.sent.0);
}

fn take_pong(cursor: &mut Cursor<'_>) -> Result<Pong, DecodeError> {
    Ok(Pong {
        id: cursor.u64()?,
        vcpu: cursor.u16()?,
        received: GuestTicks(cursor.u64()?),
        sent: GuestTicks(cursor.u64()?),
    })
}

/// ```text
/// 0x0a vcpu:u16 before:u64 realtime_ns:u64 after:u64
/// ```
fn put_host_time(out: &mut Vec<u8>, told: &HostTime) {
    out.push(HOST_TIME);
    put_u16(out, told.vcpu);
    put_u64(out, told.before.0);
    put_u64(out, told.realtime_ns);
    put_u64(out, told.after.0);
}

fn take_host_time(cursor: &mut Cursor<'_>) -> Result<HostTime, DecodeError> {
    Ok(HostTime {
        vcpu: cursor.u16()?,
        before: GuestTicks(cursor.u64()?),
        realtime_ns: cursor.u64()?,
        after: GuestTicks(cursor.u64()?),
    })
}

/// ```text
/// 0x05 count:u64 first:u64 last:u64
/// ```
fn put_dropped(out: &mut Vec<u8>, dropped: &Dropped) {
    out.push(DROPPED);
    put_u64(out, dropped.count);
    put_u64(out, dropped.first.0);
    put_u64(out, dropped.last.0);
}

fn take_dropped(cursor: &mut Cursor<'_>) -> Result<Dropped, DecodeError> {
    Ok(Dropped {
        count: cursor.u64()?,
        first: GuestTicks(cursor.u64()?),
        last: GuestTicks(cursor.u64()?),
    })
}

/// ```text
/// 0x06 length:varint (at most HOGS_MAX) length x { vcpu:u16 count:varint }
/// ```
fn put_hogs(out: &mut Vec<u8>, hogs: &[HogCount]) -> Result<(), EncodeError> {
    bound("hogs", hogs.len(), HOGS_MAX)?;
    out.push(HOGS);
    put_count(out, hogs.len());
    for hog in hogs {
        put_u16(out, hog.vcpu);
        leb128::put(out, hog.count);
    }
    Ok(())
}

fn take_hogs(cursor: &mut Cursor<'_>) -> Result<Vec<HogCount>, DecodeError> {
    let length = cursor.count("hogs", HOGS_MAX)?;
    let mut hogs = Vec::with_capacity(length);
    for _ in 0..length {
        hogs.push(HogCount { vcpu: cursor.u16()?, count: cursor.varint()? });
    }
    Ok(hogs)
}

/// ```text
/// 0x09 vcpu:u16 length:varint (at most HOG_GAPS_MAX)
///      length x { since the end of the one before, or 0:varint  end - start:varint }
/// ```
/// Differences wrap around 2^64.
fn put_hog_gaps(out: &mut Vec<u8>, gaps: &HogGaps) -> Result<(), EncodeError> {
    bound("hog gaps", gaps.gaps.len(), HOG_GAPS_MAX)?;
    out.push(HOG_GAPS);
    put_u16(out, gaps.vcpu);
    put_count(out, gaps.gaps.len());
    let mut before = 0;
    for gap in &gaps.gaps {
        leb128::put(out, gap.start.0.wrapping_sub(before));
        leb128::put(out, gap.end.0.wrapping_sub(gap.start.0));
        before = gap.end.0;
    }
    Ok(())
}

fn take_hog_gaps(cursor: &mut Cursor<'_>) -> Result<HogGaps, DecodeError> {
    let vcpu = cursor.u16()?;
    let length = cursor.count("hog gaps", HOG_GAPS_MAX)?;
    let mut gaps = Vec::with_capacity(length);
    let mut before = 0_u64;
    for _ in 0..length {
        let start = before.wrapping_add(cursor.varint()?);
        let end = start.wrapping_add(cursor.varint()?);
        gaps.push(HogGap { start: GuestTicks(start), end: GuestTicks(end) });
        before = end;
    }
    Ok(HogGaps { vcpu, gaps })
}

/// ```text
/// 0x07 severity:u8 (0 warning | 1 error) text:string
/// ```
fn put_notice(out: &mut Vec<u8>, notice: &Notice) -> Result<(), EncodeError> {
    out.push(NOTICE);
    out.push(match notice.severity {
        Severity::Warning => 0,
        Severity::Error => 1,
    });
    put_string(out, "bytes of notice", &notice.text, NOTICE_BYTES_MAX)
}

fn take_notice(cursor: &mut Cursor<'_>) -> Result<Notice, DecodeError> {
    Ok(Notice {
        severity: match cursor.u8()? {
            0 => Severity::Warning,
            1 => Severity::Error,
            value => return Err(DecodeError::UnknownCase { what: "severity", value }),
        },
        text: cursor.string("bytes of notice", NOTICE_BYTES_MAX)?,
    })
}

/// ```text
/// 0x08 reason:u8 (0 completed | 1 stopped | 2 failed) requests:u64 dropped:u64
/// ```
fn put_done(out: &mut Vec<u8>, done: &Done) {
    out.push(DONE);
    out.push(match done.reason {
        DoneReason::Completed => 0,
        DoneReason::Stopped => 1,
        DoneReason::Failed => 2,
    });
    put_u64(out, done.requests);
    put_u64(out, done.dropped);
}

fn take_done(cursor: &mut Cursor<'_>) -> Result<Done, DecodeError> {
    Ok(Done {
        reason: match cursor.u8()? {
            0 => DoneReason::Completed,
            1 => DoneReason::Stopped,
            2 => DoneReason::Failed,
            value => return Err(DecodeError::UnknownCase { what: "reason", value }),
        },
        requests: cursor.u64()?,
        dropped: cursor.u64()?,
    })
}
