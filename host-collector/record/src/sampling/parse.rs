//! The texts of `/proc/TID/{syscall,stat,schedstat}`. Pure.

use vslice_core::samples::Call;

/// The text of `syscall` (linux: fs/proc/base.c, `proc_pid_syscall`): `running`, or the number and
/// six arguments, stack pointer and program counter; a number of -1 has no arguments. `None` for
/// any other text.
pub(super) fn call(text: &str) -> Option<Call> {
    let mut words = text.split_ascii_whitespace();
    let number = match words.next()? {
        "running" => return Some(Call::Running),
        "-1" => return Some(Call::None),
        number => number.parse().ok()?,
    };
    let mut arg = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some(Call::In { number, args: [arg()?, arg()?, arg()?] })
}

/// The state in the text of `stat`: field 3 of proc_pid_stat(5), after the name in parentheses,
/// which may hold anything.
pub(super) fn state(text: &[u8]) -> Option<u8> {
    let close = text.iter().rposition(|byte| *byte == b')')?;
    text.get(close + 2).copied().filter(u8::is_ascii_alphabetic)
}

/// The three numbers of `schedstat` (linux: Documentation/scheduler/sched-stats.rst): nanoseconds on
/// a pCPU, nanoseconds waiting for one, timeslices.
pub(crate) fn schedstat(text: &str) -> Option<[u64; 3]> {
    let mut words = text.split_ascii_whitespace().map(|word| word.parse().ok());
    Some([words.next()??, words.next()??, words.next()??])
}

/// The text of `wchan`: a symbol, or `0` where there is none to show.
pub(super) fn wchan(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|name| !name.is_empty() && *name != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_as_linux_6_18_prints_them() {
        let futex = "202 0x560c94849b40 0x80 0x2 0x0 0x0 0x0 0x7ffd73fc8db8 0x7f24ff947503\n";
        let args = [0x560c_9484_9b40, 0x80, 2];
        assert_eq!(call(futex), Some(Call::In { number: 202, args }));
        assert_eq!(call("running\n"), Some(Call::Running));
        assert_eq!(call("-1 0x7ffd73fc8db8 0x7f24ff947503\n"), Some(Call::None));
        for nonsense in ["", "202", "202 0x1 2 0x3", "many", "0 0x1 0x2"] {
            assert_eq!(call(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_name_does_not_hide_the_state() {
        assert_eq!(state(b"13139 (CPU 0) R (x) D 13125 13125"), Some(b'D'));
        for cut in [&b"13139 (CPU"[..], b"13139 (CPU)", b"13139 (CPU) ", b"13139 (CPU) 7"] {
            assert_eq!(state(cut), None);
        }
    }

    #[test]
    fn totals_and_symbols() {
        assert_eq!(schedstat("919605 300025 1\n"), Some([919_605, 300_025, 1]));
        assert_eq!(schedstat("0 0"), None);
        assert_eq!(wchan("hrtimer_nanosleep"), Some("hrtimer_nanosleep"));
        assert_eq!((wchan("0"), wchan("")), (None, None));
    }
}
