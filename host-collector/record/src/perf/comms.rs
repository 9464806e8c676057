//! Thread names: said once, and again when they change. Births of threads: said when the thread is seen
//! first, if nobody was known who had to do with it.

use std::collections::HashMap;
use vslice_core::units::{HostNs, Tid};

/// Threads whose names are held at most; beyond that all are forgotten and said again.
const NAMES_MAX: usize = 1 << 16;

/// `TASK_COMM_LEN`: a name with its NUL.
const COMM_BYTES: usize = 16;

type RawComm = [u8; COMM_BYTES];

/// Births that are held back at most; beyond that all are forgotten.
const BIRTHS_MAX: usize = 1 << 16;

/// The names that were said last. Records name a thread with every switch; events only once.
#[derive(Debug, Default)]
pub(super) struct Comms {
    names: HashMap<Tid, Named>,
    /// Of threads that are not named yet: most of a host's never are.
    births: HashMap<Tid, Birth>,
}

/// Of whom a thread was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) pid: Tid,
    pub(super) parent_pid: Tid,
}

#[derive(Debug)]
struct Named {
    comm: RawComm,
    /// The number of the control group that was said last.
    group: Option<u64>,
    /// When it was seen last. Rings are read one after the other, so a sighting may be older than
    /// one that was read before it.
    seen: HostNs,
}

impl Comms {
    /// A record names a thread: the name, if it has to be said. The idle task is never named.
    pub(super) fn sighted(&mut self, tid: Tid, time: HostNs, comm: &[u8]) -> Option<String> {
        if tid == Tid::IDLE {
            return None;
        }
        let comm = raw_comm(comm);
        if let Some(named) = self.names.get_mut(&tid) {
            let known = named.comm == comm;
            if time >= named.seen {
                (named.comm, named.seen) = (comm, time);
            }
            return (!known).then(|| text(&comm));
        }
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names.insert(tid, Named { comm, group: None, seen: time });
        Some(text(&comm))
    }

    /// A record says the control group of a thread that was named before: whether it has to be said. One that
    /// is older than what was seen last is nothing new.
    pub(super) fn is_elsewhere(&mut self, tid: Tid, time: HostNs, group: u64) -> bool {
        let Some(named) = self.names.get_mut(&tid).filter(|named| time >= named.seen) else {
            return false;
        };
        named.group.replace(group) != Some(group)
    }

    /// Whether the thread was named before.
    pub(super) fn knows(&self, tid: Tid) -> bool {
        self.names.contains_key(&tid)
    }

    /// A thread was born: what is known of that number was another one's.
    pub(super) fn born(&mut self, tid: Tid) {
        self.names.remove(&tid);
        self.births.remove(&tid);
    }

    /// It need not be said before the thread is seen.
    pub(super) fn hold_back(&mut self, tid: Tid, birth: Birth) {
        if self.births.len() >= BIRTHS_MAX {
            self.births.clear();
        }
        self.births.insert(tid, birth);
    }

    /// The birth that has to be said now, as the thread is named.
    pub(super) fn take_birth(&mut self, tid: Tid) -> Option<Birth> {
        self.births.remove(&tid)
    }

    /// A thread has ended.
    pub(super) fn ended(&mut self, tid: Tid) {
        self.births.remove(&tid);
    }
}

/// The bytes up to the NUL, at most 15 of them.
fn raw_comm(bytes: &[u8]) -> RawComm {
    let mut comm = [0; COMM_BYTES];
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let length = name.len().min(COMM_BYTES - 1);
    comm[..length].copy_from_slice(&name[..length]);
    comm
}

/// A name that may be printed: whatever is not UTF-8 or a control character becomes `?`. Anybody
/// on the host may give a thread any name.
fn text(comm: &RawComm) -> String {
    let name = comm.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        let clean = |letter: char| if letter.is_control() { '?' } else { letter };
        text.extend(chunk.valid().chars().map(clean));
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_name_is_said_once_and_again_when_it_changes() {
        let mut comms = Comms::default();
        let mut see = |time, comm: &[u8]| comms.sighted(Tid(5), HostNs(time), comm);
        assert_eq!(see(10, b"sh\0garbage"), name("sh"));
        assert_eq!(see(11, b"sh\0"), None);
        assert_eq!(see(50, b"cat"), name("cat"));
        // From a ring that is read later: said at its own time, but not taken for the present.
        assert_eq!(see(20, b"sh"), name("sh"));
        assert_eq!(see(60, b"cat"), None);
        assert_eq!(comms.sighted(Tid::IDLE, HostNs(1), b"swapper/1"), None);
    }

    #[test]
    fn a_number_that_is_used_again_is_named_again() {
        let mut comms = Comms::default();
        comms.sighted(Tid(5), HostNs(1), b"sh");
        assert!(comms.knows(Tid(5)));
        comms.born(Tid(5));
        assert!(!comms.knows(Tid(5)));
        assert_eq!(comms.sighted(Tid(5), HostNs(2), b"sh"), name("sh"));
    }

    #[test]
    fn a_control_group_is_said_once_and_again_when_it_changes() {
        let mut comms = Comms::default();
        assert!(!comms.is_elsewhere(Tid(5), HostNs(9), 77), "nobody knows it");
        comms.sighted(Tid(5), HostNs(10), b"sh");
        assert!(comms.is_elsewhere(Tid(5), HostNs(10), 77));
        assert!(!comms.is_elsewhere(Tid(5), HostNs(11), 77));
        assert!(!comms.is_elsewhere(Tid(5), HostNs(5), 66), "from a ring that is read later");
        assert!(comms.is_elsewhere(Tid(5), HostNs(12), 78));
        comms.born(Tid(5));
        comms.sighted(Tid(5), HostNs(13), b"sh");
        assert!(comms.is_elsewhere(Tid(5), HostNs(13), 78), "another thread");
    }

    #[test]
    fn the_map_is_bounded() {
        let mut comms = Comms::default();
        for tid in 1..=u32::try_from(NAMES_MAX).unwrap() + 1 {
            comms.sighted(Tid(tid), HostNs(1), b"x");
        }
        assert_eq!(comms.names.len(), 1);
    }

    #[test]
    fn births_that_are_held_back_are_bounded_and_said_once() {
        let mut comms = Comms::default();
        let birth = Birth { pid: Tid(5), parent_pid: Tid(1) };
        for tid in 1..=u32::try_from(BIRTHS_MAX).unwrap() + 2 {
            comms.hold_back(Tid(tid), birth);
        }
        assert_eq!(comms.births.len(), 2);
        let last = Tid(u32::try_from(BIRTHS_MAX).unwrap() + 2);
        assert_eq!((comms.take_birth(last), comms.take_birth(last)), (Some(birth), None));
    }

    proptest! {
        #[test]
        fn a_name_can_always_be_printed_and_is_short(bytes in prop::collection::vec(any::<u8>(), 0..20)) {
            let said = Comms::default().sighted(Tid(1), HostNs(0), &bytes).unwrap();
            prop_assert!(said.len() < COMM_BYTES);
            prop_assert!(!said.contains(char::is_control));
        }
    }
}
