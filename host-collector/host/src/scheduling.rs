//! How a thread competes for its pCPU: its scheduling class and its weight or priority in it.

use crate::procfs;
use vslice_core::units::Tid;
use vslice_trace::thread::Scheduling;

/// A thread's policy by the number of `linux/include/uapi/linux/sched.h`.
const POLICIES: [(u32, &str); 7] = [
    (0, "SCHED_OTHER"),
    (1, "SCHED_FIFO"),
    (2, "SCHED_RR"),
    (3, "SCHED_BATCH"),
    (5, "SCHED_IDLE"),
    (6, "SCHED_DEADLINE"),
    (7, "SCHED_EXT"),
];

/// How a thread competes now, if it is there.
#[must_use]
pub fn scheduling_of(tid: Tid) -> Option<Scheduling> {
    parse(&std::fs::read_to_string(format!("/proc/{tid}/stat")).ok()?)
}

/// Fields 19 (`nice`), 40 (`rt_priority`) and 41 (`policy`) of proc_pid_stat(5).
fn parse(stat: &str) -> Option<Scheduling> {
    let field = |number: usize| procfs::fields_after_comm(stat)?.nth(number - 3);
    let policy: u32 = field(41)?.parse().ok()?;
    let name = POLICIES.iter().find(|(number, _)| *number == policy).map(|(_, name)| *name);
    Some(Scheduling {
        policy: name.map_or_else(|| format!("policy {policy}"), str::to_owned),
        nice: field(19)?.parse().ok()?,
        priority: field(40)?.parse().ok()?,
    })
}
#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "13139 (CPU 0) x) S 9 1 1 0 -1 4194304 99 0 0 0 0 0 0 0 20 -5 1 0 180777 3133440 \
                        358 18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 42 1 0 0 0";

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let fifo = parse(STAT).expect("all fields");
        assert_eq!((fifo.policy.as_str(), fifo.nice, fifo.priority), ("SCHED_FIFO", -5, 42));
        assert_eq!(fifo.to_string(), "SCHED_FIFO priority 42");
        let other = STAT.replace(" 42 1 0 0 0", " 0 0 0 0 0");
        assert_eq!(parse(&other).expect("all").to_string(), "SCHED_OTHER nice -5");
        let unknown = STAT.replace(" 42 1 0 0 0", " 0 9 0 0 0");
        assert_eq!(parse(&unknown).expect("all").to_string(), "policy 9");
        assert_eq!(parse("13139 (cat) R 1 2"), None);
    }

    #[test]
    fn a_thread_that_is_nice_says_so() {
        let mut sleeper = std::process::Command::new("nice")
            .args(["-n", "7", "sleep", "60"])
            .spawn()
            .expect("coreutils");
        let own = scheduling_of(Tid(std::process::id())).expect("it runs");
        let nice = || scheduling_of(Tid(sleeper.id())).map(|scheduling| scheduling.nice);
        let expected = Some((own.nice + 7).min(19));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while nice() != expected && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let found = nice();
        sleeper.kill().expect("it runs");
        sleeper.wait().expect("it ends");
        assert_eq!(found, expected);
    }
}
