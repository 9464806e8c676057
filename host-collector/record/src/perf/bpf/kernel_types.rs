// SPDX-License-Identifier: MIT OR Apache-2.0 OR GPL-2.0-only
//! Where the running kernel keeps what a program reads, from its own description of its types: BTF,
//! `/sys/kernel/btf/vmlinux` (Documentation/bpf/btf.rst).
//!
//! Nothing is assumed of the layout, and the kernel's verifier checks each access against the same
//! types again when a program is loaded.

use btfparse::{
    Error, ErrorKind, Offset, Readable, Result as BtfResult, TypeInformation, TypeVariant,
};

/// Where the kernel describes its types, since 5.4 where it was built with them.
const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// A tracepoint as a program is attached to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tracepoint {
    /// The number of its type, `btf_trace_NAME`.
    pub(super) type_id: u32,
    /// How many arguments it has.
    pub(super) arguments_count: usize,
    /// What the first one points to, if it is a pointer to a type with a name.
    pub(super) first_argument: Option<String>,
}

/// Byte offsets of what is read of a task and of a thread's user registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelTypes {
    pub(super) switch: Tracepoint,
    pub(super) waking: Tracepoint,
    pub(super) pid: i16,
    pub(super) comm: i16,
    pub(super) prio: i16,
    /// The pCPU that a task last ran on; in `thread_info` since 5.16.
    pub(super) pcpu: i16,
    /// `__state` since 5.14, `state` before.
    pub(super) state: i16,
    pub(super) exit_state: i16,
    /// Null of a kernel thread.
    pub(super) memory: i16,
    /// Where the kernel keeps it (`CONFIG_SCHED_INFO`, `CONFIG_FAIR_GROUP_SCHED`).
    pub(super) arrival: Option<Arrival>,
    /// Where this architecture's registers are known.
    pub(super) registers: Option<UserRegisters>,
    /// Of a task, the pointers that lead to its control group in the default hierarchy, and of that the
    /// number; else what is not as it is known.
    pub(super) group: Result<[i16; 4], String>,
    /// What is read of the block layer's types; else what is not as it is known.
    pub(super) block: Result<BlockTypes, String>,
}

/// Where `struct pt_regs` has what `registers` reads: see there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserRegisters {
    /// In the order of a sample's words: ax, dx, si, di.
    pub(super) offsets: [i16; 4],
    /// The code segment, which tells 64-bit code.
    pub(super) code_segment: i16,
}

/// When a task came onto its pCPU, and what time it is there, by the clock of the run queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Of a task, when it came.
    pub(super) arrived: i16,
    /// Of a task, its queue of the fair class; of any task, whatever its class is.
    pub(super) fair_queue: i16,
    /// Of that, the pCPU's run queue.
    pub(super) run_queue: i16,
    /// Of that, the clock.
    pub(super) clock: i16,
}

impl Arrival {
    fn of(types: &TypeInformation) -> Result<Arrival, String> {
        Ok(Arrival {
            arrived: offset_of(types, "task_struct", "sched_info.last_arrival")?,
            fair_queue: offset_of(types, "task_struct", "se.cfs_rq")?,
            run_queue: offset_of(types, "cfs_rq", "rq")?,
            clock: offset_of(types, "rq", "clock")?,
        })
    }
}

impl KernelTypes {
    /// Of the running kernel; the error says what is missing.
    pub(super) fn read() -> Result<KernelTypes, String> {
        let bytes = std::fs::read(BTF_PATH).map_err(|error| format!("{BTF_PATH}: {error}"))?;
        KernelTypes::parse(bytes)
    }

    fn parse(bytes: Vec<u8>) -> Result<KernelTypes, String> {
        let types = TypeInformation::new(&Bytes(bytes))
            .map_err(|error| format!("{BTF_PATH} is not understood: {error:?}"))?;
        let task = |path: &str| offset_of(&types, "task_struct", path);
        let register = |path: &str| offset_of(&types, "pt_regs", path);
        let registers = || -> Result<UserRegisters, String> {
            let offsets = [register("ax")?, register("dx")?, register("si")?, register("di")?];
            Ok(UserRegisters { offsets, code_segment: register("cs")? })
        };
        Ok(KernelTypes {
            switch: tracepoint(&types, "btf_trace_sched_switch")?,
            waking: tracepoint(&types, "btf_trace_sched_waking")?,
            pid: task("pid")?,
            comm: task("comm")?,
            prio: task("prio")?,
            pcpu: task("thread_info.cpu").or_else(|_| task("cpu"))?,
            state: task("__state").or_else(|_| task("state"))?,
            exit_state: task("exit_state")?,
            memory: task("mm")?,
            arrival: Arrival::of(&types).ok(),
            registers: if super::super::registers::MASK == 0 { None } else { Some(registers()?) },
            group: control_group(&types),
            block: BlockTypes::of(&types),
        })
    }
}

/// `task->cgroups->dfl_cgrp->kn->id`, as `task_dfl_cgroup` and `cgroup_id` in include/linux/cgroup.h read it.
fn control_group(types: &TypeInformation) -> Result<[i16; 4], String> {
    Ok([
        offset_of(types, "task_struct", "cgroups")?,
        offset_of(types, "css_set", "dfl_cgrp")?,
        offset_of(types, "cgroup", "kn")?,
        offset_of(types, "kernfs_node", "id")?,
    ])
}

/// The block layer's tracepoints, and byte offsets of what is read of their arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockTypes {
    /// `block_bio_queue(bio)`, `block_rq_issue(request)` and `block_rq_complete(request, error, bytes)`.
    pub(super) submitted: Tracepoint,
    pub(super) issued: Tracepoint,
    pub(super) completed: Tracepoint,
    /// What an I/O is told of by until it is a request: `struct bio`.
    pub(super) bio: BlockPlace,
    /// And from then on: `struct request`.
    pub(super) request: BlockPlace,
    /// Of a disk (`struct gendisk`), the two halves of its `dev_t`.
    pub(super) major: i16,
    pub(super) first_minor: i16,
}

/// Where a bio or a request says for which disk and which sectors it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockPlace {
    /// The pointers that lead to the disk.
    pub(super) disk: Vec<i16>,
    /// The first sector, of 512 bytes and of the whole disk.
    pub(super) sector: i16,
    /// How many bytes.
    pub(super) bytes: i16,
    /// What is done with them, in its low bits.
    pub(super) operation: i16,
}

impl BlockTypes {
    /// As `bio_dev` in include/linux/bio.h and the tracepoints in include/trace/events/block.h read them.
    /// Since 5.11 the queue is no argument any more, and since 5.12 a bio leads to its disk by
    /// `bi_bdev`; programs need 5.15 anyhow. Since 5.17 a request does so by its queue.
    fn of(types: &TypeInformation) -> Result<BlockTypes, String> {
        let offset = |name, path| offset_of(types, name, path);
        let known = |name: &str, argument, count| {
            let found = tracepoint(types, name)?;
            let is_known =
                found.arguments_count == count && found.first_argument.as_deref() == Some(argument);
            is_known
                .then_some(found)
                .ok_or_else(|| format!("the arguments of {name} are not as known"))
        };
        let request_disk = || -> Result<Vec<i16>, String> {
            if let Ok(disk) = offset("request", "rq_disk") {
                return Ok(vec![disk]);
            }
            Ok(vec![offset("request", "q")?, offset("request_queue", "disk")?])
        };
        Ok(BlockTypes {
            submitted: known("btf_trace_block_bio_queue", "bio", 1)?,
            issued: known("btf_trace_block_rq_issue", "request", 1)?,
            completed: known("btf_trace_block_rq_complete", "request", 3)?,
            bio: BlockPlace {
                disk: vec![offset("bio", "bi_bdev")?, offset("block_device", "bd_disk")?],
                sector: offset("bio", "bi_iter.bi_sector")?,
                bytes: offset("bio", "bi_iter.bi_size")?,
                operation: offset("bio", "bi_opf")?,
            },
            request: BlockPlace {
                disk: request_disk()?,
                sector: offset("request", "__sector")?,
                bytes: offset("request", "__data_len")?,
                operation: offset("request", "cmd_flags")?,
            },
            major: offset("gendisk", "major")?,
            first_minor: offset("gendisk", "first_minor")?,
        })
    }
}

fn offset_of(types: &TypeInformation, name: &str, path: &str) -> Result<i16, String> {
    let missing = || format!("the kernel's types have no {name}.{path}");
    let id = types.id_of(name).ok_or_else(missing)?;
    match types.offset_of(id, path) {
        Ok((_, Offset::ByteOffset(offset))) => i16::try_from(offset).map_err(|_| missing()),
        _ => Err(missing()),
    }
}

/// A tracepoint's type is a typedef of a pointer to a function, whose first argument programs do not
/// see.
fn tracepoint(types: &TypeInformation, name: &str) -> Result<Tracepoint, String> {
    let missing = || format!("the kernel's types have no {name}");
    let type_id = types.id_of(name).ok_or_else(missing)?;
    let pointer = match types.from_id(type_id) {
        Some(TypeVariant::Typedef(typedef)) => types.from_id(*typedef.tid()),
        _ => None,
    };
    let function = match pointer {
        Some(TypeVariant::Ptr(pointer)) => types.from_id(*pointer.tid()),
        _ => None,
    };
    let Some(TypeVariant::FuncProto(function)) = function else { return Err(missing()) };
    let arguments_count = function.parameter_list().len().saturating_sub(1);
    let first = function.parameter_list().get(1).and_then(|argument| types.from_id(argument.tid()));
    let first_argument = match first {
        Some(TypeVariant::Ptr(pointer)) => types.name_of(*pointer.tid()),
        _ => None,
    };
    Ok(Tracepoint { type_id, arguments_count, first_argument })
}

/// A file's bytes, as the parser reads them.
struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> BtfResult<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.0.get(start..).and_then(|rest| rest.get(..buffer.len()));
        let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::IOError, "beyond the end"))?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btf_is_an_error() {
        let error = KernelTypes::parse(b"no such thing".to_vec()).unwrap_err();
        assert!(error.starts_with("/sys/kernel/btf/vmlinux is not understood"), "{error}");
    }
}
