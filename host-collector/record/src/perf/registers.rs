//! The system call that a thread is in, from its user registers. Pure.
//!
//! A thread that sleeps in `futex(2)` was given the address of the lock in a register, and the
//! kernel keeps the caller's registers until it returns. So a switch that is recorded together with
//! them (`PERF_SAMPLE_REGS_USER`) says by itself on which lock the thread sleeps: exactly at the
//! moment in question, with nothing to be matched and nothing that could be lost in between. The
//! tracepoints of system calls would say the same, but they send *every* system call of *every*
//! process of the host through the kernel's slow path (`SYSCALL_WORK_SYSCALL_TRACEPOINT`).

use vslice_perf::bytes::u64_at;

/// The registers of which a sample has the values, as bits of `sample_regs_user`; 0 where this
/// architecture's are not known.
///
/// x86-64, numbers of `arch/x86/include/uapi/asm/perf_regs.h`: ax, dx, si, di. Values come in the
/// order of the bits.
#[cfg(target_arch = "x86_64")]
pub(super) const MASK: u64 = 1 | 1 << 3 | 1 << 4 | 1 << 5;
#[cfg(not(target_arch = "x86_64"))]
pub(super) const MASK: u64 = 0;

/// Words that a sample has of them: the ABI, then the four registers.
pub(super) const WORDS: usize = 5;

/// Bytes of the number of a control group, which a program writes in front of them.
pub(super) const GROUP_BYTES: usize = 8;

/// What the entry code puts in the place of ax before it calls the system call's function
/// (`PUSH_AND_CLEAR_REGS rax=$-ENOSYS` in `arch/x86/entry/entry_64.S`); it stays there until the
/// call has a result.
const IN_CALL: u64 = (-(libc::ENOSYS as i64)).cast_unsigned();

/// `PERF_SAMPLE_REGS_ABI_64`; 0 is a thread without user registers, 1 a 32-bit one.
const ABI_64: u64 = 2;

/// The first three arguments of the system call, from the words after the raw data of a sample:
/// the ABI, then the registers of [`MASK`].
///
/// A thread that an interrupt has taken out of its own code may have any values in its registers,
/// the one of [`IN_CALL`] among them: only the kernel stack proves that there is a system call.
pub(super) fn call_args(words: &[u8]) -> Option<[u64; 3]> {
    let word = |place: usize| u64_at(words, place * 8);
    if word(0)? != ABI_64 || word(1)? != IN_CALL {
        return None;
    }
    // The first argument is in di, the second in si, the third in dx: syscall(2).
    Some([word(4)?, word(3)?, word(2)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[u64]) -> Option<[u64; 3]> {
        call_args(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>())
    }

    /// As `perf script -F uregs` printed them of a thread in `pthread_mutex_lock` on Linux 6.18:
    /// `ABI:2 AX:0xffffffffffffffda DX:0x2 SI:0x80 DI:0x561645c03060`.
    #[test]
    fn a_futex_sleep_tells_its_lock() {
        let recorded = [2, 0xffff_ffff_ffff_ffda, 0x2, 0x80, 0x5616_45c0_3060];
        assert_eq!(read(&recorded), Some([0x5616_45c0_3060, 0x80, 2]));
    }

    #[test]
    fn what_is_no_call_has_no_arguments() {
        assert_eq!(read(&[]), None, "not asked for");
        assert_eq!(read(&[0]), None, "a kernel thread");
        assert_eq!(read(&[1, IN_CALL, 2, 0x80, 7]), None, "a 32-bit thread");
        assert_eq!(read(&[2, 5, 2, 0x80, 7]), None, "taken out of its own code");
        assert_eq!(read(&[2, IN_CALL, 2, 0x80]), None, "too short");
    }
}
