//! The bytes of what an agent that observes says.
//!
//! A block of requests is columns of varints, as `block.rs` has them: what repeats costs a few bytes
//! a block, and each request costs where it is, when it was queued, and how long it then took.
//!
//! ```text
//! block     := settled:u64
//!              count:varint                 at most OBSERVED_MAX
//!              runs of device, operation, flags, vcpu_queued, vcpu_issued, vcpu_completed, task, bytes
//!                                           varint
//!              runs of result               zigzag
//!              count x sector               zigzag(sector - end of the request before)
//!              count x queued               zigzag(queued - the one before)
//!              count x issued               zigzag(issued - queued)
//!              count x completed            zigzag(completed - issued)
//! ```
//!
//! The first request has none before it: its sector and time are stored whole. All differences wrap
//! around 2^64.

use crate::block::{put_runs, take_runs};
use crate::bytes::{Cursor, bound, put_count, put_string, put_u16, put_u64};
use crate::leb128::{self, zigzag};
use crate::observed::{
    BlockOperation, CompletionVcpu, Observed, ObservedBlock, ObservedCost, ObservedDevice,
    ObservedEnd, ObservedFlags, ObservedHidden, ObservedIssue, ObservedOthers, ObservedRequest,
    ObservedTask, ObservedUnderWay,
};
use crate::{
    DecodeError, Dropped, EncodeError, GuestTicks, NAME_BYTES_MAX, OBSERVED_DEVICES_MAX,
    OBSERVED_MAX, OBSERVED_OTHERS_MAX, OBSERVED_TASKS_MAX, OBSERVED_UNDER_WAY_MAX,
};

const DEVICES: u8 = 0;
const TASKS: u8 = 1;
const REQUESTS: u8 = 2;
const OTHERS: u8 = 3;
const LOST: u8 = 4;
const COST: u8 = 5;
const END: u8 = 6;

const NOT_YET: u8 = 0;
const AT: u8 = 1;
const UNKNOWN: u8 = 2;

/// ```text
/// 0x0b what:u8 (0 devices | 1 tasks | 2 requests | 3 others | 4 lost | 5 cost | 6 end), then that
/// ```
pub(crate) fn put_observed(out: &mut Vec<u8>, observed: &Observed) -> Result<(), EncodeError> {
    match observed {
        Observed::Devices(devices) => put_devices(out, devices),
        Observed::Tasks(tasks) => put_tasks(out, tasks),
        Observed::Requests(block) => put_block(out, block),
        Observed::Others(others) => put_others(out, others),
        Observed::Lost(lost) => {
            out.push(LOST);
            put_u64(out, lost.count);
            put_u64(out, lost.first.0);
            put_u64(out, lost.last.0);
            Ok(())
        }
        Observed::Cost(cost) => {
            out.push(COST);
            for value in [cost.cpu_ns, cost.events_count, cost.lost_count, cost.clock_read_ns] {
                leb128::put(out, value);
            }
            Ok(())
        }
        Observed::End(end) => put_end(out, end),
    }
}

pub(crate) fn take_observed(cursor: &mut Cursor<'_>) -> Result<Observed, DecodeError> {
    Ok(match cursor.u8()? {
        DEVICES => Observed::Devices(take_devices(cursor)?),
        TASKS => Observed::Tasks(take_tasks(cursor)?),
        REQUESTS => Observed::Requests(take_block(cursor)?),
        OTHERS => Observed::Others(take_others(cursor)?),
        LOST => Observed::Lost(Dropped {
            count: cursor.u64()?,
            first: GuestTicks(cursor.u64()?),
            last: GuestTicks(cursor.u64()?),
        }),
        COST => Observed::Cost(ObservedCost {
            cpu_ns: cursor.varint()?,
            events_count: cursor.varint()?,
            lost_count: cursor.varint()?,
            clock_read_ns: cursor.varint()?,
        }),
        END => Observed::End(take_end(cursor)?),
        value => return Err(DecodeError::UnknownCase { what: "observation", value }),
    })
}

/// ```text
/// count:varint  count x { number:u16 name:string major:varint minor:varint size_bytes:varint
///                         serial:string address:string io_scheduler:string hardware_queues:u16
///                         completion_vcpu:u8 (0 unknown | 1 interrupted | 2 interrupted or queued | 3 queued) }
/// ```
fn put_devices(out: &mut Vec<u8>, devices: &[ObservedDevice]) -> Result<(), EncodeError> {
    bound("devices", devices.len(), OBSERVED_DEVICES_MAX)?;
    out.push(DEVICES);
    put_count(out, devices.len());
    for device in devices {
        put_u16(out, device.number);
        put_string(out, "bytes of device name", &device.name, NAME_BYTES_MAX)?;
        leb128::put(out, device.major.into());
        leb128::put(out, device.minor.into());
        leb128::put(out, device.size_bytes);
        put_string(out, "bytes of serial number", &device.serial, NAME_BYTES_MAX)?;
        put_string(out, "bytes of bus address", &device.address, NAME_BYTES_MAX)?;
        put_string(out, "bytes of I/O scheduler", &device.io_scheduler, NAME_BYTES_MAX)?;
        put_u16(out, device.hardware_queues);
        out.push(device.completion_vcpu as u8);
    }
    Ok(())
}

fn take_devices(cursor: &mut Cursor<'_>) -> Result<Vec<ObservedDevice>, DecodeError> {
    let count = cursor.count("devices", OBSERVED_DEVICES_MAX)?;
    let device = |_| {
        Ok(ObservedDevice {
            number: cursor.u16()?,
            name: cursor.string("bytes of device name", NAME_BYTES_MAX)?,
            major: narrow(cursor.varint()?, "device number")?,
            minor: narrow(cursor.varint()?, "device number")?,
            size_bytes: cursor.varint()?,
            serial: cursor.string("bytes of serial number", NAME_BYTES_MAX)?,
            address: cursor.string("bytes of bus address", NAME_BYTES_MAX)?,
            io_scheduler: cursor.string("bytes of I/O scheduler", NAME_BYTES_MAX)?,
            hardware_queues: cursor.u16()?,
            completion_vcpu: completion_vcpu(cursor.u8()?)?,
        })
    };
    (0..count).map(device).collect()
}

fn completion_vcpu(value: u8) -> Result<CompletionVcpu, DecodeError> {
    let found = CompletionVcpu::ALL.get(usize::from(value)).copied();
    found.ok_or(DecodeError::UnknownCase { what: "completion vCPU", value })
}

/// ```text
/// count:varint  count x { number:varint pid:varint name:string title:string }
/// ```
fn put_tasks(out: &mut Vec<u8>, tasks: &[ObservedTask]) -> Result<(), EncodeError> {
    bound("tasks", tasks.len(), OBSERVED_TASKS_MAX)?;
    out.push(TASKS);
    put_count(out, tasks.len());
    for task in tasks {
        leb128::put(out, task.number.into());
        leb128::put(out, task.pid.into());
        put_string(out, "bytes of task name", &task.name, NAME_BYTES_MAX)?;
        put_string(out, "bytes of title", &task.title, NAME_BYTES_MAX)?;
    }
    Ok(())
}

fn take_tasks(cursor: &mut Cursor<'_>) -> Result<Vec<ObservedTask>, DecodeError> {
    let count = cursor.count("tasks", OBSERVED_TASKS_MAX)?;
    let task = |_| {
        Ok(ObservedTask {
            number: narrow(cursor.varint()?, "task")?,
            pid: narrow(cursor.varint()?, "process id")?,
            name: cursor.string("bytes of task name", NAME_BYTES_MAX)?,
            title: cursor.string("bytes of title", NAME_BYTES_MAX)?,
        })
    };
    (0..count).map(task).collect()
}

/// ```text
/// count:varint  count x { device:u16 operation:u8 is_sync:u8 count:varint bytes:varint total_ticks:varint }
/// ```
fn put_others(out: &mut Vec<u8>, others: &[ObservedOthers]) -> Result<(), EncodeError> {
    bound("counts", others.len(), OBSERVED_OTHERS_MAX)?;
    out.push(OTHERS);
    put_count(out, others.len());
    for of in others {
        put_u16(out, of.device);
        out.extend([of.operation.number(), u8::from(of.is_sync)]);
        [of.count, of.bytes, of.total_ticks].iter().for_each(|value| leb128::put(out, *value));
    }
    Ok(())
}

fn take_others(cursor: &mut Cursor<'_>) -> Result<Vec<ObservedOthers>, DecodeError> {
    let count = cursor.count("counts", OBSERVED_OTHERS_MAX)?;
    let of = |_| {
        Ok(ObservedOthers {
            device: cursor.u16()?,
            operation: operation(cursor.u8()?.into())?,
            is_sync: cursor.bool("somebody waits")?,
            count: cursor.varint()?,
            bytes: cursor.varint()?,
            total_ticks: cursor.varint()?,
        })
    };
    (0..count).map(of).collect()
}

/// ```text
/// at:u64 earlier_count:varint passthrough_count:varint late_count:varint
/// hidden: queued:varint issued:varint completed:varint others:varint is_exact:u8
/// count:varint  count x { device:u16 operation:u8 is_sync:u8 count:varint sector:varint bytes:varint
///                         task:varint queued:u64 issue:u8 (0 not yet | 1 at:u64 | 2 unknown) }
/// ```
fn put_end(out: &mut Vec<u8>, end: &ObservedEnd) -> Result<(), EncodeError> {
    bound("rows of what is under way", end.under_way.len(), OBSERVED_UNDER_WAY_MAX)?;
    out.push(END);
    put_u64(out, end.at.0);
    for count in [end.earlier_count, end.passthrough_count, end.late_count] {
        leb128::put(out, count);
    }
    let hidden = end.hidden;
    let by_kind = [hidden.queued_count, hidden.issued_count, hidden.completed_count];
    for count in by_kind.into_iter().chain([hidden.others_count]) {
        leb128::put(out, count);
    }
    out.push(u8::from(hidden.is_exact));
    put_count(out, end.under_way.len());
    for of in &end.under_way {
        put_u16(out, of.device);
        out.extend([of.operation.number(), u8::from(of.is_sync)]);
        for value in [of.count, of.sector, of.bytes.into(), of.task.into()] {
            leb128::put(out, value);
        }
        put_u64(out, of.queued.0);
        match of.issue {
            ObservedIssue::NotYet => out.push(NOT_YET),
            ObservedIssue::At(at) => {
                out.push(AT);
                put_u64(out, at.0);
            }
            ObservedIssue::Unknown => out.push(UNKNOWN),
        }
    }
    Ok(())
}

fn take_end(cursor: &mut Cursor<'_>) -> Result<ObservedEnd, DecodeError> {
    let at = GuestTicks(cursor.u64()?);
    let [earlier_count, passthrough_count, late_count] =
        [cursor.varint()?, cursor.varint()?, cursor.varint()?];
    let hidden = ObservedHidden {
        queued_count: cursor.varint()?,
        issued_count: cursor.varint()?,
        completed_count: cursor.varint()?,
        others_count: cursor.varint()?,
        is_exact: cursor.bool("all that was hidden")?,
    };
    let count = cursor.count("rows of what is under way", OBSERVED_UNDER_WAY_MAX)?;
    let row = |_| {
        Ok(ObservedUnderWay {
            device: cursor.u16()?,
            operation: operation(cursor.u8()?.into())?,
            is_sync: cursor.bool("somebody waits")?,
            count: cursor.varint()?,
            sector: cursor.varint()?,
            bytes: narrow(cursor.varint()?, "length")?,
            task: narrow(cursor.varint()?, "task")?,
            queued: GuestTicks(cursor.u64()?),
            issue: match cursor.u8()? {
                NOT_YET => ObservedIssue::NotYet,
                AT => ObservedIssue::At(GuestTicks(cursor.u64()?)),
                UNKNOWN => ObservedIssue::Unknown,
                value => return Err(DecodeError::UnknownCase { what: "issue", value }),
            },
        })
    };
    let under_way = (0..count).map(row).collect::<Result<_, _>>()?;
    Ok(ObservedEnd { at, earlier_count, passthrough_count, late_count, hidden, under_way })
}

fn put_block(out: &mut Vec<u8>, block: &ObservedBlock) -> Result<(), EncodeError> {
    let requests = &block.requests;
    bound("observed requests", requests.len(), OBSERVED_MAX)?;
    out.push(REQUESTS);
    put_u64(out, block.settled.0);
    put_count(out, requests.len());
    for of in [
        |request: &ObservedRequest| request.device.into(),
        |request: &ObservedRequest| request.operation.number().into(),
        |request: &ObservedRequest| request.flags.0.into(),
        |request: &ObservedRequest| request.vcpu_queued.into(),
        |request: &ObservedRequest| request.vcpu_issued.into(),
        |request: &ObservedRequest| request.vcpu_completed.into(),
        |request: &ObservedRequest| request.task.into(),
        |request: &ObservedRequest| request.bytes.into(),
        |request: &ObservedRequest| zigzag(i64::from(request.result).cast_unsigned()),
    ] {
        put_runs(out, requests.iter().map(of));
    }
    let mut before = 0_u64;
    for request in requests {
        leb128::put(out, zigzag(request.sector.wrapping_sub(before)));
        before = request.sector.wrapping_add(u64::from(request.bytes).div_ceil(SECTOR_BYTES));
    }
    let mut before = 0_u64;
    for request in requests {
        leb128::put(out, zigzag(request.queued.0.wrapping_sub(before)));
        before = request.queued.0;
    }
    for request in requests {
        leb128::put(out, zigzag(request.issued.0.wrapping_sub(request.queued.0)));
    }
    for request in requests {
        leb128::put(out, zigzag(request.completed.0.wrapping_sub(request.issued.0)));
    }
    Ok(())
}

const SECTOR_BYTES: u64 = 512;

fn take_block(cursor: &mut Cursor<'_>) -> Result<ObservedBlock, DecodeError> {
    let settled = GuestTicks(cursor.u64()?);
    let count = cursor.count("observed requests", OBSERVED_MAX)?;
    let mut requests = vec![BLANK; count];
    take_facts(cursor, &mut requests)?;
    let mut before = 0_u64;
    for request in &mut requests {
        request.sector = before.wrapping_add(cursor.zigzag()?);
        before = request.sector.wrapping_add(u64::from(request.bytes).div_ceil(SECTOR_BYTES));
    }
    let mut before = 0_u64;
    for request in &mut requests {
        before = before.wrapping_add(cursor.zigzag()?);
        request.queued = GuestTicks(before);
    }
    for request in &mut requests {
        request.issued = GuestTicks(request.queued.0.wrapping_add(cursor.zigzag()?));
    }
    for request in &mut requests {
        request.completed = GuestTicks(request.issued.0.wrapping_add(cursor.zigzag()?));
    }
    Ok(ObservedBlock { settled, requests })
}

/// The columns that repeat.
fn take_facts(
    cursor: &mut Cursor<'_>,
    requests: &mut [ObservedRequest],
) -> Result<(), DecodeError> {
    let vcpu = |cursor: &mut Cursor<'_>| narrow(cursor.varint()?, "vCPU");
    let device = |cursor: &mut Cursor<'_>| narrow(cursor.varint()?, "device");
    take_runs(cursor, requests, "device", device, |of, value| of.device = value)?;
    let kind = |cursor: &mut Cursor<'_>| operation(cursor.varint()?);
    take_runs(cursor, requests, "operation", kind, |of, value| of.operation = value)?;
    let flags = |cursor: &mut Cursor<'_>| narrow(cursor.varint()?, "set of flags");
    take_runs(cursor, requests, "flags", flags, |of, value| of.flags = ObservedFlags(value))?;
    take_runs(cursor, requests, "vcpu_queued", vcpu, |of, value| of.vcpu_queued = value)?;
    take_runs(cursor, requests, "vcpu_issued", vcpu, |of, value| of.vcpu_issued = value)?;
    take_runs(cursor, requests, "vcpu_completed", vcpu, |of, value| of.vcpu_completed = value)?;
    let task = |cursor: &mut Cursor<'_>| narrow(cursor.varint()?, "task");
    take_runs(cursor, requests, "task", task, |of, value| of.task = value)?;
    let bytes = |cursor: &mut Cursor<'_>| narrow(cursor.varint()?, "length");
    take_runs(cursor, requests, "bytes", bytes, |of, value| of.bytes = value)?;
    let result = |cursor: &mut Cursor<'_>| {
        let value = cursor.zigzag()?;
        i32::try_from(value.cast_signed())
            .map_err(|_| DecodeError::OutOfRange { what: "result", value })
    };
    take_runs(cursor, requests, "result", result, |of, value| of.result = value)
}

/// Every field of it is overwritten by a column.
const BLANK: ObservedRequest = ObservedRequest {
    device: 0,
    operation: BlockOperation::Read,
    flags: ObservedFlags(0),
    sector: 0,
    bytes: 0,
    queued: GuestTicks(0),
    issued: GuestTicks(0),
    completed: GuestTicks(0),
    vcpu_queued: 0,
    vcpu_issued: 0,
    vcpu_completed: 0,
    task: 0,
    result: 0,
};

fn operation(value: u64) -> Result<BlockOperation, DecodeError> {
    BlockOperation::of_number(value).ok_or(DecodeError::OutOfRange { what: "operation", value })
}

fn narrow<T: TryFrom<u64>>(value: u64, what: &'static str) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::OutOfRange { what, value })
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
