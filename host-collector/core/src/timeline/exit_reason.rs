//! Why a vCPU left its guest, and why KVM asked the VMM to go on: two kinds of numbers, each with the
//! kernel's own names.

mod names;

use crate::host_event::KvmEvent;
use std::fmt;

/// `KVM_ISA_VMX` and `KVM_ISA_SVM`, `arch/x86/kvm/trace.h`.
const ISA_VMX: u32 = 1;
const ISA_SVM: u32 = 2;

/// Of a VMX reason, what names it; above it are flags (`arch/x86/kvm/trace.h`, `kvm_print_exit_reason`).
const VMX_BASIC: u32 = 0xffff;

/// `VMX_EXIT_REASONS_FAILED_VMENTRY`, `arch/x86/include/uapi/asm/vmx.h`.
const VMX_FAILED_ENTRY: u32 = 0x8000_0000;

/// `EINTR`, which the tracepoint shows as `restart`.
const EINTR: i32 = 4;

/// Why a vCPU left its guest, in the numbers of whatever ran it (`kvm:kvm_exit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HardwareExit {
    /// A reason of Intel's VMX, flags included.
    Vmx(u32),
    /// A reason of AMD's SVM.
    Svm(u32),
    /// Of a backend whose reasons have no names here.
    Other {
        /// Which one, by its number.
        isa: u32,
        /// Its reason.
        reason: u32,
    },
}

impl HardwareExit {
    /// From the fields of `kvm_exit`.
    #[must_use]
    pub fn new(isa: u32, reason: u32) -> HardwareExit {
        match isa {
            ISA_VMX => HardwareExit::Vmx(reason),
            ISA_SVM => HardwareExit::Svm(reason),
            _ => HardwareExit::Other { isa, reason },
        }
    }
}

/// The kernel's name of the reason, or its number.
impl fmt::Display for HardwareExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            HardwareExit::Vmx(reason) => {
                match name(names::VMX, reason & VMX_BASIC) {
                    Some(name) => formatter.write_str(name)?,
                    None => write!(formatter, "VMX reason {}", reason & VMX_BASIC)?,
                }
                match reason & !VMX_BASIC {
                    0 => Ok(()),
                    VMX_FAILED_ENTRY => formatter.write_str(" FAILED_VMENTRY"),
                    flags => write!(formatter, " with flags {flags:#x}"),
                }
            }
            HardwareExit::Svm(reason) => match name(names::SVM, reason) {
                Some(name) => formatter.write_str(name),
                None => write!(formatter, "SVM reason {reason:#x}"),
            },
            HardwareExit::Other { isa, reason } => {
                write!(formatter, "backend {isa} reason {reason:#x}")
            }
        }
    }
}

/// Why `KVM_RUN` returned to the VMM (`kvm:kvm_userspace_exit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UserspaceExit {
    /// With a reason of `KVM_EXIT_*` for the VMM to act on.
    Reason(u32),
    /// With `EINTR`: a signal, which is how a VMM kicks a vCPU. The reason beside it says nothing.
    Restart,
    /// With another errno; the reason beside it says nothing.
    Error(i32),
}

impl UserspaceExit {
    /// From the fields of `kvm_userspace_exit`; `errno` is 0 or negative.
    #[must_use]
    pub fn new(reason: u32, errno: i32) -> UserspaceExit {
        match errno {
            0.. => UserspaceExit::Reason(reason),
            errno if errno == -EINTR => UserspaceExit::Restart,
            errno => UserspaceExit::Error(errno.saturating_neg()),
        }
    }
}

/// The kernel's name of the reason, or its number.
impl fmt::Display for UserspaceExit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            UserspaceExit::Reason(reason) => match name(names::USERSPACE, reason) {
                Some(name) => write!(formatter, "KVM_EXIT_{name}"),
                None => write!(formatter, "KVM_EXIT number {reason}"),
            },
            UserspaceExit::Restart => formatter.write_str("restart (EINTR)"),
            UserspaceExit::Error(errno) => write!(formatter, "error {errno}"),
        }
    }
}

/// An exit of either kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExitReason {
    /// Out of the guest.
    Hardware(HardwareExit),
    /// Out of KVM.
    Userspace(UserspaceExit),
}

impl ExitReason {
    /// The exit that an event tells of, if it does.
    #[must_use]
    pub fn of(event: KvmEvent) -> Option<ExitReason> {
        match event {
            KvmEvent::GuestExit { isa, reason } => {
                Some(ExitReason::Hardware(HardwareExit::new(isa, reason)))
            }
            KvmEvent::UserspaceExit { reason, errno } => {
                Some(ExitReason::Userspace(UserspaceExit::new(reason, errno)))
            }
            KvmEvent::GuestEntry
            | KvmEvent::HaltEnd { .. }
            | KvmEvent::PortWrite { .. }
            | KvmEvent::PortRead { .. }
            | KvmEvent::Memory { .. }
            | KvmEvent::Interrupt { .. } => None,
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitReason::Hardware(exit) => exit.fmt(formatter),
            ExitReason::Userspace(exit) => exit.fmt(formatter),
        }
    }
}

fn name(table: &[(u32, &'static str)], number: u32) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `print fmt` of the `format` files of Linux 6.18.
    const EXIT_FORMAT: &str = include_str!("exit_reason/kvm_exit-6.18.txt");
    const USERSPACE_FORMAT: &str = include_str!("exit_reason/kvm_userspace_exit-6.18.txt");

    /// The pairs `{ number, "name" }` of a text, where a number may be a sum and a name in pieces.
    fn pairs(text: &str) -> Vec<(u32, String)> {
        let bodies = text.split("{ ").skip(1).filter_map(|rest| rest.split_once(" }"));
        let pair = |(body, _): (&str, &str)| {
            let (sum, name) = body.split_once(", ").unwrap();
            let number = sum.split(" + ").map(number).fold(0, u32::wrapping_add);
            (number, name.replace("\" \"", "").trim_matches('"').to_owned())
        };
        bodies.map(pair).collect()
    }

    fn number(text: &str) -> u32 {
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
            None => text.parse::<i32>().unwrap().cast_unsigned(),
        }
    }

    #[test]
    fn the_names_are_those_that_the_kernel_prints() {
        let (vmx, rest) = EXIT_FORMAT.split_once(" : __print_symbolic").unwrap();
        let (svm, _) = rest.split_once("(REC->isa == 1 &&").unwrap();
        let (vmx, svm) = (pairs(vmx), pairs(svm));
        assert_eq!((vmx.len(), svm.len()), (65, 110));
        for (number, name) in vmx {
            assert_eq!(HardwareExit::new(1, number).to_string(), name);
        }
        for (number, name) in svm {
            assert_eq!(HardwareExit::new(2, number).to_string(), name);
        }
        let userspace = pairs(USERSPACE_FORMAT);
        assert_eq!(userspace.len(), 31);
        for (number, name) in userspace {
            let own = UserspaceExit::new(number, 0).to_string();
            assert_eq!(own, name);
        }
    }

    #[test]
    fn no_number_has_two_names() {
        for table in [names::VMX, names::SVM, names::USERSPACE] {
            assert!(table.windows(2).all(|pair| pair[0].0 < pair[1].0), "{table:?}");
        }
    }

    #[test]
    fn what_has_no_name_is_told_by_number() {
        for (exit, text) in [
            (HardwareExit::new(3, 7), "backend 3 reason 0x7"),
            (HardwareExit::new(0, 12), "backend 0 reason 0xc"),
            (HardwareExit::new(1, 5), "VMX reason 5"),
            (HardwareExit::new(2, 0x4ff), "SVM reason 0x4ff"),
            (HardwareExit::new(1, 0x8000_0021), "INVALID_STATE FAILED_VMENTRY"),
            (HardwareExit::new(1, 0x0800_000c), "HLT with flags 0x8000000"),
        ] {
            assert_eq!(exit.to_string(), text);
        }
    }

    #[test]
    fn a_reason_beside_an_errno_says_nothing() {
        for (reason, errno, text) in [
            (2, 0, "KVM_EXIT_IO"),
            (39, 0, "KVM_EXIT_MEMORY_FAULT"),
            (999, 0, "KVM_EXIT number 999"),
            (2, -4, "restart (EINTR)"),
            (10, -4, "restart (EINTR)"),
            (2, -14, "error 14"),
        ] {
            assert_eq!(UserspaceExit::new(reason, errno).to_string(), text);
        }
    }
}
