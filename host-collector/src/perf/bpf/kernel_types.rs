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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tracepoint {
    /// The number of its type, `btf_trace_NAME`.
    pub(super) type_id: u32,
    /// How many arguments it has.
    pub(super) arguments_count: usize,
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
    Ok(Tracepoint { type_id, arguments_count })
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
