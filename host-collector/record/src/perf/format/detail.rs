//! Tracepoints that tell more than the scheduler: what KVM did for a vCPU, what the disk did.
//!
//! A recording goes without any of them that the kernel lacks, and says so.

use vslice_core::host_event::{BlockEvent, BlockStep, HostEventKind, KvmEvent};
use vslice_core::units::Tid;
use vslice_perf::format::{Field, Format};
use vslice_wire::BlockOperation;

/// One of these tracepoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::perf) enum Detail {
    /// The VMM is asked to go on.
    UserspaceExit,
    /// The guest touched a port.
    Port,
    /// The guest touched a device's memory.
    Memory,
    /// The guest runs.
    GuestEntry,
    /// The guest stopped running.
    GuestExit,
    /// The guest was halted, and is no longer.
    HaltEnd,
    /// A vCPU is interrupted.
    Interrupt,
    /// A step of an I/O.
    Block(BlockStep),
}

impl Detail {
    /// What names the device that a vCPU needed: few records, as each stands for an exit.
    pub(in crate::perf) const DEVICE_ACCESS: [Detail; 3] =
        [Detail::UserspaceExit, Detail::Port, Detail::Memory];

    /// What tells guest from KVM from VMM: two records for each exit, of which there may be a
    /// hundred thousand a second.
    pub(in crate::perf) const EXITS: [Detail; 2] = [Detail::GuestEntry, Detail::GuestExit];

    /// What tells halt polling from the rest of KVM: one record for each halt.
    pub(in crate::perf) const HALTS: [Detail; 1] = [Detail::HaltEnd];

    /// What tells whom the VMM interrupts for an I/O that is done: one record for each interrupt that a thread of it
    /// sends which runs no vCPU.
    pub(in crate::perf) const INTERRUPTS: [Detail; 1] = [Detail::Interrupt];

    /// What the host's disk did.
    pub(in crate::perf) const DISK: [Detail; 3] = [
        Detail::Block(BlockStep::Submitted),
        Detail::Block(BlockStep::Issued),
        Detail::Block(BlockStep::Completed),
    ];

    /// Group and name, as tracefs has them.
    pub(in crate::perf) fn name(self) -> &'static str {
        match self {
            Detail::UserspaceExit => "kvm/kvm_userspace_exit",
            Detail::Port => "kvm/kvm_pio",
            Detail::Memory => "kvm/kvm_mmio",
            Detail::GuestEntry => "kvm/kvm_entry",
            Detail::GuestExit => "kvm/kvm_exit",
            Detail::HaltEnd => "kvm/kvm_vcpu_wakeup",
            Detail::Interrupt => "kvm/kvm_apic_accept_irq",
            Detail::Block(BlockStep::Submitted) => "block/block_bio_queue",
            Detail::Block(BlockStep::Issued) => "block/block_rq_issue",
            Detail::Block(BlockStep::Completed) => "block/block_rq_complete",
        }
    }

    /// The fields that are read, at most four.
    fn field_names(self) -> &'static [&'static str] {
        match self {
            Detail::UserspaceExit => &["reason", "errno"],
            Detail::Port => &["rw", "port"],
            Detail::Memory => &["gpa"],
            Detail::GuestEntry => &[],
            Detail::GuestExit => &["isa", "exit_reason"],
            Detail::HaltEnd => &["ns", "waited"],
            Detail::Interrupt => &["apicid", "vec"],
            Detail::Block(_) => &["dev", "sector", "nr_sector", "rwbs"],
        }
    }
}

/// Where one of these tracepoints has its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::perf) struct DetailFormat {
    pub(in crate::perf) id: u16,
    pub(in crate::perf) detail: Detail,
    pub(in crate::perf) common_pid: Field,
    fields: Vec<Field>,
}

impl DetailFormat {
    /// From the text of the `format` file; the error says what is missing.
    pub(in crate::perf) fn parse(detail: Detail, text: &str) -> Result<DetailFormat, String> {
        let format = Format::new(text);
        let fields = detail.field_names().iter().map(|name| format.field(name));
        Ok(DetailFormat {
            id: format.id()?,
            detail,
            common_pid: format.field("common_pid")?,
            fields: fields.collect::<Result<_, _>>()?,
        })
    }

    /// Of a step of an I/O, where its disk, its first sector, its length and its operation are.
    pub(in crate::perf) fn block_fields(&self) -> Option<[Field; 4]> {
        matches!(self.detail, Detail::Block(_)).then_some(())?;
        self.fields.as_slice().try_into().ok()
    }

    /// The length of what is read, in whole words of 8 bytes.
    pub(in crate::perf) fn bytes(&self) -> usize {
        super::whole_words(self.fields.iter().copied().chain([self.common_pid]))
    }

    /// What a record says; `None` where it is too short.
    pub(in crate::perf) fn event(&self, raw: &[u8]) -> Option<HostEventKind> {
        let tid = Tid(u32::try_from(self.common_pid.number(raw)?).ok()?);
        let number = |place: usize| self.fields.get(place)?.number(raw);
        let short = |place| u32::try_from(number(place)?).ok();
        let event = match self.detail {
            Detail::UserspaceExit => {
                KvmEvent::UserspaceExit { reason: short(0)?, errno: short(1)?.cast_signed() }
            }
            Detail::Port => {
                let port = u16::try_from(number(1)?).ok()?;
                // KVM_PIO_IN and KVM_PIO_OUT, arch/x86/kvm/trace.h.
                if number(0)? == 0 {
                    KvmEvent::PortRead { port }
                } else {
                    KvmEvent::PortWrite { port }
                }
            }
            Detail::Memory => KvmEvent::Memory { address: number(0)? },
            Detail::GuestEntry => KvmEvent::GuestEntry,
            Detail::GuestExit => KvmEvent::GuestExit { isa: short(0)?, reason: short(1)? },
            Detail::HaltEnd => {
                KvmEvent::HaltEnd { halted_ns: number(0)?, has_slept: number(1)? != 0 }
            }
            Detail::Interrupt => {
                KvmEvent::Interrupt { vcpu: short(0)?, vector: u8::try_from(number(1)?).ok()? }
            }
            Detail::Block(step) => {
                let (device, sector, sectors) = (short(0)?, number(1)?, short(2)?);
                let letters = self.fields.get(3)?.bytes(raw)?;
                let operation = operation(letters, sectors);
                let event = BlockEvent { step, tid, device, sector, sectors, operation };
                return Some(HostEventKind::Block(event));
            }
        };
        Some(HostEventKind::Kvm { tid, event })
    }
}

/// The operation that the letters of `rwbs` tell (linux: kernel/trace/blktrace.c, `blk_fill_rwbs`): its letter, behind
/// an `F` if what was written before has to be durable first. What only asks for that has no sectors.
fn operation(letters: &[u8], sectors: u32) -> Option<BlockOperation> {
    let letters = match letters {
        [b'F', rest @ ..] if rest.first().is_some_and(|letter| b"RWDNF".contains(letter)) => rest,
        all => all,
    };
    Some(match letters.first()? {
        0 => return None,
        b'F' => BlockOperation::Flush,
        b'W' | b'N' if sectors == 0 => BlockOperation::Flush,
        b'R' => BlockOperation::Read,
        b'W' => BlockOperation::Write,
        // `DE` erases.
        b'D' if letters.get(1) != Some(&b'E') => BlockOperation::Discard,
        _ => BlockOperation::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::perf::event::tests::words;

    /// Lines of the `format` files of Linux 6.18.
    const HEAD: &str = "ID: 42\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n";
    const USERSPACE_EXIT: &str = "\tfield:__u32 reason;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:int errno;\toffset:12;\tsize:4;\tsigned:1;\n";
    const PIO: &str = "\tfield:unsigned int rw;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned int port;\toffset:12;\tsize:4;\tsigned:0;\n";
    const MMIO: &str = "\tfield:u32 type;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:u32 len;\toffset:12;\tsize:4;\tsigned:0;\n\
        \tfield:u64 gpa;\toffset:16;\tsize:8;\tsigned:0;\n";
    const WAKEUP: &str = "\tfield:__u64 ns;\toffset:8;\tsize:8;\tsigned:0;\n\
        \tfield:bool waited;\toffset:16;\tsize:1;\tsigned:0;\n\
        \tfield:bool valid;\toffset:17;\tsize:1;\tsigned:0;\n";
    const INTERRUPT: &str = "\tfield:__u32 apicid;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:__u16 dm;\toffset:12;\tsize:2;\tsigned:0;\n\
        \tfield:__u16 tm;\toffset:14;\tsize:2;\tsigned:0;\n\
        \tfield:__u8 vec;\toffset:16;\tsize:1;\tsigned:0;\n";
    const BLOCK: &str = "\tfield:dev_t dev;\toffset:8;\tsize:4;\tsigned:0;\n\
        \tfield:sector_t sector;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned int nr_sector;\toffset:24;\tsize:4;\tsigned:0;\n\
        \tfield:char rwbs[10];\toffset:32;\tsize:10;\tsigned:0;\n";

    fn event(detail: Detail, fields: &str, own: &[u32]) -> Option<HostEventKind> {
        let format = DetailFormat::parse(detail, &format!("{HEAD}{fields}")).unwrap();
        format.event(&[words(&[42, 900]), words(own)].concat())
    }

    #[test]
    fn records_are_read() {
        let kvm = |event| Some(HostEventKind::Kvm { tid: Tid(900), event });
        let kicked = KvmEvent::UserspaceExit { reason: 10, errno: -4 };
        let minus_four = (-4_i32).cast_unsigned();
        assert_eq!(event(Detail::UserspaceExit, USERSPACE_EXIT, &[10, minus_four]), kvm(kicked));
        // Little-endian: the low half of the address comes first.
        let memory = KvmEvent::Memory { address: 0xfe00_3004 };
        assert_eq!(event(Detail::Memory, MMIO, &[2, 2, 0xfe00_3004, 0]), kvm(memory));
        assert_eq!(event(Detail::Port, PIO, &[0, 0x1f7]), kvm(KvmEvent::PortRead { port: 0x1f7 }));
        assert_eq!(event(Detail::Port, PIO, &[1, 0x1f7]), kvm(KvmEvent::PortWrite { port: 0x1f7 }));
        assert_eq!(event(Detail::GuestEntry, "", &[]), kvm(KvmEvent::GuestEntry));
        // Beside `waited` is `valid`, of which nothing is read.
        for (word, has_slept) in [(0x0000_0100, false), (0x0000_0101, true), (1, true)] {
            let halt_end = KvmEvent::HaltEnd { halted_ns: 70_000, has_slept };
            assert_eq!(event(Detail::HaltEnd, WAKEUP, &[70_000, 0, word]), kvm(halt_end));
        }
        let interrupt = KvmEvent::Interrupt { vcpu: 3, vector: 0x2a };
        assert_eq!(event(Detail::Interrupt, INTERRUPT, &[3, 0, 0x2a]), kvm(interrupt));
        let block = BlockEvent {
            step: BlockStep::Completed,
            tid: Tid(900),
            device: 254 << 20,
            sector: 4096,
            sectors: 8,
            operation: Some(BlockOperation::Write),
        };
        assert_eq!(
            event(
                Detail::Block(BlockStep::Completed),
                BLOCK,
                &[254 << 20, 0, 4096, 0, 8, 0, 0x5357, 0, 0]
            ),
            Some(HostEventKind::Block(block))
        );
    }

    #[test]
    fn the_letters_of_an_io_tell_its_operation() {
        use BlockOperation::{Discard, Flush, Other, Read, Write};
        for (letters, sectors, told) in [
            ("R", 8, Some(Read)),
            ("RAM", 8, Some(Read)),
            ("WS", 8, Some(Write)),
            ("FWFS", 8, Some(Write)),
            ("FF", 0, Some(Flush)),
            ("F", 0, Some(Flush)),
            ("FWS", 0, Some(Flush)),
            ("FN", 0, Some(Flush)),
            ("D", 8, Some(Discard)),
            ("DE", 8, Some(Other)),
            ("N", 8, Some(Other)),
            ("\0", 8, None),
            ("", 8, None),
        ] {
            assert_eq!(operation(letters.as_bytes(), sectors), told, "{letters} {sectors}");
        }
    }

    #[test]
    fn a_record_that_is_too_short_or_a_format_without_a_field_says_so() {
        assert_eq!(event(Detail::Memory, MMIO, &[2, 2, 7]), None);
        let missing = DetailFormat::parse(Detail::Port, HEAD).unwrap_err();
        assert_eq!(missing, "no field rw");
    }
}
