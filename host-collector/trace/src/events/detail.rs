//! What KVM and the disks did, as numbers, and the columns of it before version 6.

use crate::column::{CodecError, ColumnReader, narrow};
use vslice_core::host_event::{BlockEvent, BlockStep, HostEventKind, KvmEvent};
use vslice_core::units::Tid;
use vslice_wire::BlockOperation;

/// What KVM did, as a code and two numbers; the second has 32 bits.
pub(super) fn kvm_columns(event: KvmEvent) -> (u8, u64, u64) {
    match event {
        KvmEvent::GuestEntry => (0, 0, 0),
        KvmEvent::GuestExit { isa, reason } => (1, reason.into(), isa.into()),
        KvmEvent::UserspaceExit { reason, errno } => {
            (2, reason.into(), errno.cast_unsigned().into())
        }
        KvmEvent::PortWrite { port } => (3, port.into(), 0),
        KvmEvent::Memory { address } => (4, address, 0),
        KvmEvent::PortRead { port } => (5, port.into(), 0),
        KvmEvent::HaltEnd { halted_ns, has_slept } => (6, halted_ns, has_slept.into()),
        KvmEvent::Interrupt { vcpu, vector } => (7, vcpu.into(), vector.into()),
    }
}

pub(super) fn kvm_of(code: u8, first: u64, second: u64) -> Result<KvmEvent, CodecError> {
    Ok(match code {
        0 => KvmEvent::GuestEntry,
        1 => KvmEvent::GuestExit { isa: narrow(second)?, reason: narrow(first)? },
        2 => KvmEvent::UserspaceExit {
            reason: narrow(first)?,
            errno: narrow::<u32>(second)?.cast_signed(),
        },
        3 => KvmEvent::PortWrite { port: narrow(first)? },
        4 => KvmEvent::Memory { address: first },
        5 => KvmEvent::PortRead { port: narrow(first)? },
        6 => match second {
            0 | 1 => KvmEvent::HaltEnd { halted_ns: first, has_slept: second == 1 },
            other => return Err(CodecError::OutOfRange(other)),
        },
        7 => KvmEvent::Interrupt { vcpu: narrow(first)?, vector: narrow(second)? },
        other => return Err(CodecError::OutOfRange(other.into())),
    })
}

pub(super) fn decode_kvm(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<HostEventKind>, CodecError> {
    let tids = columns.deltas::<u32>(count)?;
    let codes = columns.bytes(count)?;
    let firsts = columns.deltas::<u64>(count)?;
    let seconds = columns.varints::<u64>(count)?;
    let kvm = |((tid, code), (first, second)): ((u32, &u8), (u64, u64))| {
        Ok(HostEventKind::Kvm { tid: Tid(tid), event: kvm_of(*code, first, second)? })
    };
    tids.into_iter().zip(codes).zip(firsts.into_iter().zip(seconds)).map(kvm).collect()
}

const STEPS: [BlockStep; 3] = [BlockStep::Submitted, BlockStep::Issued, BlockStep::Completed];

/// The step's place, plus three for each operation before this one; the first is that nobody knows it, which is all
/// that there was before version 4.
pub(super) fn step_code(block: &BlockEvent) -> u8 {
    let step = match block.step {
        BlockStep::Submitted => 0,
        BlockStep::Issued => 1,
        BlockStep::Completed => 2,
    };
    step + 3 * block.operation.map_or(0, |operation| 1 + operation.number())
}

pub(super) fn step_of(code: u8) -> Result<(BlockStep, Option<BlockOperation>), CodecError> {
    let place = usize::from(code);
    let operation = match (place / STEPS.len()).checked_sub(1) {
        None => None,
        Some(number) => {
            let operation = BlockOperation::ALL.get(number);
            Some(*operation.ok_or(CodecError::OutOfRange(code.into()))?)
        }
    };
    Ok((STEPS[place % STEPS.len()], operation))
}

pub(super) fn decode_blocks(
    count: usize,
    columns: &mut ColumnReader<'_>,
) -> Result<Vec<HostEventKind>, CodecError> {
    let steps = columns.runs::<u8>(count)?;
    let tids = columns.deltas::<u32>(count)?;
    let devices = columns.runs::<u32>(count)?;
    let sectors = columns.deltas::<u64>(count)?;
    let lengths = columns.runs::<u32>(count)?;
    let places = devices.into_iter().zip(sectors.into_iter().zip(lengths));
    let block = |((step, tid), (device, (sector, sectors))): ((u8, u32), (u32, (u64, u32)))| {
        let ((step, operation), tid) = (step_of(step)?, Tid(tid));
        Ok(HostEventKind::Block(BlockEvent { step, tid, device, sector, sectors, operation }))
    };
    steps.into_iter().zip(tids).zip(places).map(block).collect()
}
