// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! The programs that record what disks do. Pure.
//!
//! A disk completes its I/O in an interrupt, whose task is whoever it interrupted, and where a pCPU had
//! nothing to do that is its idle task. There are kernels where perf's tracepoint events count what
//! happens while the idle task of a pCPU is current and have no record of it (see `assemble`), nor of any
//! completion there; a program at the same tracepoint runs.

use super::super::format::{Detail, Formats};
use super::assembly::Register::{R0, R1, R6, R7, R8, R9};
use super::assembly::{Assembly, Condition, Instruction, Operation, Size};
use super::kernel_types::{BlockPlace, BlockTypes, Tracepoint};
use super::record::{Record, current_tid, labels};
use std::os::fd::BorrowedFd;
use vslice_core::host_event::BlockStep;
use vslice_perf::filter::Numbers;
use vslice_perf::format::Field;

/// `MINORBITS` in include/linux/kdev_t.h.
const MINOR_BITS: i32 = 20;
/// Sectors are of 512 bytes.
const SECTOR_SHIFT: i32 = 9;

/// The tracepoint that tells of a step, and a program for it: it records that step of I/O on `disks`.
/// `None` where the kernel told no format of it.
pub(super) fn block<'a>(
    step: BlockStep,
    types: &'a BlockTypes,
    formats: &Formats,
    disks: &Numbers,
    plain: BorrowedFd<'_>,
) -> Option<(&'a Tracepoint, Vec<Instruction>)> {
    let (tracepoint, place) = match step {
        BlockStep::Submitted => (&types.submitted, &types.bio),
        BlockStep::Issued => (&types.issued, &types.request),
        BlockStep::Completed => (&types.completed, &types.request),
    };
    let format = formats.details.iter().find(|format| format.detail == Detail::Block(step))?;
    let [device_field, sector_field, sectors_field, letters_field] = format.block_fields()?;
    let record = Record::plain(format.bytes())?;
    let mut code = Assembly::default();
    let [wanted, out] = labels(&mut code);
    code.copy(R6, R1);
    code.load(Size::B8, R7, R1, 0);
    device(&mut code, types, place);
    for disk in disks {
        code.set_wide(R1, u64::from(*disk));
        code.jump_if_same(R9, R1, wanted);
    }
    code.jump(out);
    code.place(wanted);
    record.clear(&mut code);
    record.set(&mut code, formats.switch.common_type, format.id.into())?;
    current_tid(&mut code, R1);
    record.put(&mut code, format.common_pid, R1)?;
    record.put(&mut code, device_field, R9)?;
    code.load(Size::B8, R1, R7, place.sector);
    // A command that is passed through to the device has no place on it.
    code.jump_if(R1, Condition::Equal, -1, out);
    record.put(&mut code, sector_field, R1)?;
    match step {
        // How much of the request is done with it, which may be a part: the third argument.
        BlockStep::Completed => code.load(Size::B4, R1, R6, 16),
        BlockStep::Submitted | BlockStep::Issued => code.load(Size::B4, R1, R7, place.bytes),
    }
    code.calculate(R1, Operation::ShiftRight, SECTOR_SHIFT);
    record.put(&mut code, sectors_field, R1)?;
    code.load(Size::B4, R8, R7, place.operation);
    operation(&mut code, &record, letters_field)?;
    record.write(&mut code, plain, record.bytes);
    code.place(out);
    code.set(R0, 0);
    code.exit();
    Some((tracepoint, code.finish()?))
}

/// The letter of the operation in R8, as `blk_fill_rwbs` has it; the low 8 bits are `enum req_op`
/// (include/linux/blk_types.h).
fn operation(code: &mut Assembly, record: &Record, field: Field) -> Option<()> {
    const OPERATION_MASK: i32 = 0xff;
    let [end] = labels(code);
    code.calculate(R8, Operation::And, OPERATION_MASK);
    for (operation, letter) in [(0, b'R'), (1, b'W'), (2, b'F'), (3, b'D')] {
        record.put_letter(code, field, letter)?;
        code.jump_if(R8, Condition::Equal, operation, end);
    }
    record.put_letter(code, field, b'N')?;
    code.place(end);
    Some(())
}

/// R9 = the `dev_t` of the disk of the bio or request R7, 0 if it has none: where a pointer is null, the
/// kernel reads zeros for a program.
fn device(code: &mut Assembly, types: &BlockTypes, place: &BlockPlace) {
    code.copy(R8, R7);
    for pointer in &place.disk {
        code.load(Size::B8, R8, R8, *pointer);
    }
    code.load(Size::B4, R9, R8, types.major);
    code.calculate(R9, Operation::ShiftLeft, MINOR_BITS);
    code.load(Size::B4, R1, R8, types.first_minor);
    code.combine(R9, Operation::Or, R1);
}
