//! Kernel addresses -> function names, by `/proc/kallsyms` of the boot that recorded them.

use std::cmp::Reverse;
use std::io::{self, BufRead, BufReader};

/// Why addresses stay addresses.
#[derive(Debug, thiserror::Error)]
pub enum SymbolError {
    /// The file cannot be read.
    #[error("cannot read /proc/kallsyms")]
    Read(#[from] io::Error),
    /// Every address in it is 0.
    #[error(
        "/proc/kallsyms shows no addresses: run as root, or set kernel.kptr_restrict to 1 or 0"
    )]
    Hidden,
}

/// The kernel's functions in order of their addresses.
#[derive(Debug, Clone)]
pub struct Symbols {
    functions: Vec<(u64, Box<str>)>,
}

impl Symbols {
    /// Reads the running kernel's functions; takes some tens of milliseconds.
    ///
    /// # Errors
    /// When they cannot be read, or this process is not shown their addresses.
    pub fn load() -> Result<Symbols, SymbolError> {
        Symbols::read(BufReader::new(std::fs::File::open("/proc/kallsyms")?))
    }

    /// Reads lines of `address type name [module]`.
    fn read(lines: impl BufRead) -> Result<Symbols, SymbolError> {
        let mut functions = Vec::new();
        for line in lines.lines() {
            functions.extend(function(&line?));
        }
        if functions.is_empty() {
            return Err(SymbolError::Hidden);
        }
        // Of several names of one address the best comes first, and only that one stays.
        functions.sort_by(|(at, name), (other_at, other_name)| {
            at.cmp(other_at).then_with(|| rank(name).cmp(&rank(other_name)))
        });
        functions.dedup_by_key(|(at, _)| *at);
        Ok(Symbols { functions })
    }

    /// The function that holds `address`, if there is one below it.
    #[must_use]
    pub fn name(&self, address: u64) -> Option<&str> {
        let after = self.functions.partition_point(|(at, _)| *at <= address);
        after.checked_sub(1).map(|place| self.functions[place].1.as_ref())
    }

    /// The names of a stack's frames, the innermost first; an address in hex where none is known.
    #[must_use]
    pub fn frame_names(&self, frames: &[u64]) -> Vec<String> {
        let name = |(depth, address): (usize, &u64)| {
            // All but the innermost are return addresses. After a call that does not return, that
            // is already the next function, so the byte before decides.
            let at = if depth == 0 { *address } else { address.saturating_sub(1) };
            self.name(at).map_or_else(|| format!("{address:#x}"), str::to_owned)
        };
        let names = frames.iter().enumerate().map(name);
        names.skip_while(|name| is_recording(name)).collect()
    }
}

/// Whether a function is on the way from where a tracepoint is hit to whoever records it: BPF
/// (kernel/trace/bpf_trace.c), perf or ftrace.
fn is_recording(name: &str) -> bool {
    const WAYS: [&str; 5] =
        ["bpf_trace_run", "__bpf_trace_", "__traceiter_", "perf_trace_", "trace_event_raw_event_"];
    WAYS.iter().any(|way| name.starts_with(way))
}

/// A function's address and name, `None` for data and for addresses that are not shown.
fn function(line: &str) -> Option<(u64, Box<str>)> {
    let mut words = line.split_ascii_whitespace();
    let address = u64::from_str_radix(words.next()?, 16).ok().filter(|address| *address != 0)?;
    if !matches!(words.next()?, "t" | "T" | "w" | "W") {
        return None;
    }
    Some((address, words.next()?.into()))
}

/// Smaller is better: a name without leading underscores, then one that no tool made up (those
/// have dots or dollars, such as `foo.cold`), then one that is not the 32-bit entry of a system
/// call, then the longest, then the first by alphabet.
fn rank(name: &str) -> (usize, bool, bool, Reverse<usize>, &str) {
    let underscores = name.len() - name.trim_start_matches('_').len();
    // A system call without arguments is one function by both names (`SYSCALL_DEFINE0`,
    // arch/x86/include/asm/syscall_wrapper.h).
    let is_compat = name.starts_with("__ia32_");
    (underscores, name.contains(['.', '$']), is_compat, Reverse(name.len()), name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KALLSYMS: &[u8] = b"\
ffffffff81000000 T _text
ffffffff81000000 T secondary_startup
ffffffff81000100 t futex_wait_queue
ffffffff81000180 d some_data
ffffffff81000200 T do_exit
ffffffff81000300 t kvm_vcpu_block\t[kvm]
ffffffff81000400 T __ia32_sys_sched_yield
ffffffff81000400 T __x64_sys_sched_yield
ffffffff81000500 T bpf_trace_run4
ffffffff81000600 t __schedule
";

    #[test]
    fn addresses_are_named() {
        let symbols = Symbols::read(KALLSYMS).unwrap();
        assert_eq!(symbols.name(0xffff_ffff_8100_0000), Some("secondary_startup"));
        assert_eq!(symbols.name(0xffff_ffff_8100_01ff), Some("futex_wait_queue"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0301), Some("kvm_vcpu_block"));
        assert_eq!(symbols.name(0xffff_ffff_8100_0400), Some("__x64_sys_sched_yield"));
        assert_eq!(symbols.name(5), None);
        // The second frame returns to the very start of do_exit: its caller is what lies before.
        let frames = [0xffff_ffff_8100_0200, 0xffff_ffff_8100_0200, 5];
        assert_eq!(symbols.frame_names(&frames), ["do_exit", "futex_wait_queue", "0x5"]);
        // How a program was called does not belong to the thread.
        let recorded = [0xffff_ffff_8100_05fc, 0xffff_ffff_8100_0618, 0xffff_ffff_8100_0110];
        assert_eq!(symbols.frame_names(&recorded), ["__schedule", "futex_wait_queue"]);
    }

    #[test]
    fn hidden_addresses_are_an_error() {
        let hidden = Symbols::read(&b"0000000000000000 T _text\n"[..]);
        assert!(matches!(hidden, Err(SymbolError::Hidden)));
    }
}
