//! Which thread of a QEMU is which iothread, where its name does not tell.
//!
//! An iothread's thread is called `IO ID` (qemu: iothread.c), and a thread's name has 15 bytes at most. What is
//! longer is refused by the C library (pthread_setname_np(3)), and the thread keeps the process's name: so it is
//! under QEMU 7.2, 10.0 and 11.1. A program that asks the kernel itself has it cut off. What is left is
//! the order: QEMU makes its iothreads in the order of its command line, each with its thread, and before its
//! vCPUs.

use super::{IothreadSource, VmThread};
use crate::procfs::COMM_BYTES_MAX;
use std::collections::BTreeSet;
use vslice_core::units::Tid;
use vslice_trace::thread::ThreadRole;

/// Tells the iothreads of a QEMU with these ids, in their order.
pub(super) fn tell(threads: &mut [VmThread], ids: &[String]) {
    // In the order in which they were made, if no id was reused meanwhile.
    threads.sort_by_key(|thread| thread.tid);
    let is_main = |thread: &VmThread| thread.role == ThreadRole::MainLoop;
    if threads.first().is_some_and(|first| !is_main(first)) {
        return;
    }
    complete_names(threads, ids);
    name_the_unnamed(threads, ids);
}

/// The name of an iothread's thread, as long as it is.
fn name_of(id: &str) -> String {
    format!("IO {id}")
}

fn is_cut(id: &str) -> bool {
    name_of(id).len() > COMM_BYTES_MAX
}

/// A name that was cut off may be that of several ids: then their order tells, if there are as many threads.
fn complete_names(threads: &mut [VmThread], ids: &[String]) {
    let cut = |id: &String| name_of(id).into_bytes().into_iter().take(COMM_BYTES_MAX).collect();
    let names: BTreeSet<Vec<u8>> = ids.iter().filter(|id| is_cut(id)).map(cut).collect();
    for name in names {
        let called = |other: &[u8]| other == name.as_slice();
        let of_name: Vec<&String> = ids.iter().filter(|id| called(&cut(id))).collect();
        let mut own: Vec<&mut VmThread> =
            threads.iter_mut().filter(|thread| called(thread.comm.as_bytes())).collect();
        if own.len() != of_name.len() {
            continue;
        }
        let source = if own.len() == 1 { IothreadSource::Name } else { IothreadSource::Order };
        for (thread, id) in own.iter_mut().zip(of_name) {
            thread.become_iothread(id, source);
        }
    }
}

/// Between two iothreads whose names tell them, those of the ids between them were made, and no others: if as many
/// threads there have no name of their own, they are these.
fn name_the_unnamed(threads: &mut [VmThread], ids: &[String]) {
    let Some(main) = threads.first().map(|thread| thread.comm.clone()) else { return };
    // Without vCPUs that are called so, QEMU names no threads.
    let is_vcpu = |thread: &&VmThread| thread.vcpu.is_some() && thread.comm.starts_with("CPU ");
    let Some(end) = threads.iter().find(is_vcpu).map(|vcpu| vcpu.tid) else { return };
    // The thread of RCU comes first, and has its name or not (qemu: util/rcu.c).
    let has_rcu = threads.iter().any(|thread| thread.comm == "call_rcu");
    let of_id = |id: &String, threads: &[VmThread]| {
        let thread = threads.iter().find(|thread| thread.iothread.as_ref() == Some(id))?;
        Some(thread.tid)
    };
    let (mut begin, mut is_first, mut missing) = (threads[0].tid, true, Vec::new());
    for place in 0..=ids.len() {
        let next = ids.get(place);
        let anchor = next.map_or(Some(end), |id| of_id(id, threads));
        let Some(anchor) = anchor else {
            missing.extend(next.cloned());
            continue;
        };
        let skipped = usize::from(is_first && !has_rcu);
        let run = Run { begin, end: anchor, main: &main, skipped };
        run.name(threads, &missing);
        (begin, is_first) = (anchor, false);
        missing.clear();
    }
}

/// The threads between two that are known.
struct Run<'a> {
    begin: Tid,
    end: Tid,
    /// The name of the process.
    main: &'a str,
    /// How many of them come before the iothreads.
    skipped: usize,
}

impl Run<'_> {
    fn name(&self, threads: &mut [VmThread], ids: &[String]) {
        let is_unnamed = |thread: &&mut VmThread| {
            self.begin < thread.tid && thread.tid < self.end && thread.comm == self.main
        };
        let own: Vec<&mut VmThread> = threads.iter_mut().filter(is_unnamed).collect();
        let is_whole = own.len() == ids.len() + self.skipped && ids.iter().all(|id| is_cut(id));
        if !is_whole {
            return;
        }
        for (thread, id) in own.into_iter().skip(self.skipped).zip(ids) {
            thread.become_iothread(id, IothreadSource::Order);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::role;

    /// What becomes of threads with these names, whose ids ascend from 1.
    fn told(names: &str, ids: &[&str]) -> Vec<(u32, String, IothreadSource)> {
        let thread = |(comm, tid): (&str, u32)| {
            let role = role(Tid(1), Tid(tid), comm);
            VmThread::new(Tid(tid), comm, role, vec![])
        };
        let mut threads: Vec<VmThread> = names.split(';').zip(1..).map(thread).collect();
        let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
        tell(&mut threads, &ids);
        let iothreads = threads
            .into_iter()
            .filter_map(|thread| Some((thread.tid.0, thread.iothread?, thread.iothread_from?)));
        iothreads.collect()
    }

    fn by(tid: u32, id: &str, source: IothreadSource) -> (u32, String, IothreadSource) {
        (tid, id.to_owned(), source)
    }

    const SCSI: [&str; 2] = ["iothread-virtioscsi0", "iothread-virtioscsi1"];

    #[test]
    fn names_that_were_cut_off_are_told_apart_by_their_order() {
        use IothreadSource::{Name, Order};
        assert_eq!(
            told("q;IO io0;IO iothread-vir;IO iothread-vir;CPU 0/KVM", &[SCSI[0], "io0", SCSI[1]]),
            [by(2, "io0", Name), by(3, SCSI[0], Order), by(4, SCSI[1], Order)]
        );
        // Only one id can be meant.
        assert_eq!(told("q;IO iothread-vir", &[SCSI[0], "io0"]), [by(2, SCSI[0], Name)]);
        // One was added or taken away meanwhile.
        let cut = "iothread-vir";
        assert_eq!(told("q;IO iothread-vir", &SCSI), [by(2, cut, Name)]);
        assert_eq!(
            told("q;IO iothread-vir;IO iothread-vir", &[SCSI[1]]),
            [by(2, cut, Name), by(3, cut, Name)]
        );
        // The longest name that fits is whole.
        let whole = "io1234567890";
        assert_eq!(told("q;IO io1234567890", &[whole]), [by(2, whole, Name)]);
    }

    #[test]
    fn names_that_were_refused_are_told_by_their_neighbours() {
        use IothreadSource::{Name, Order};
        // As QEMU 7.2 had them; thread 2 is that of RCU.
        let names = "q;q;q;q;IO io0;IO io1234567890;q;IO mon_iothread;CPU 0/TCG;q";
        let ids = [SCSI[0], SCSI[1], "io0", "io1234567890", "io12345678901"];
        let all = [
            by(3, SCSI[0], Order),
            by(4, SCSI[1], Order),
            by(5, "io0", Name),
            by(6, "io1234567890", Name),
            by(7, "io12345678901", Order),
        ];
        assert_eq!(told(names, &ids), all);
        assert_eq!(
            told(&names.replacen("q;q", "q;call_rcu", 1), &ids),
            all,
            "the thread of RCU has its name"
        );
        // One more than there are ids for, before the first that is known and after it.
        let more = "q;q;q;q;q;IO io0;q;IO mon_iothread;CPU 0/TCG";
        assert_eq!(
            told(more, &[SCSI[0], SCSI[1], "io0", "io12345678901"]),
            [by(6, "io0", Name), by(7, "io12345678901", Order)]
        );
        assert_eq!(told("q;q;q;CPU 0/TCG", &["io0"]), [], "a short name was not refused");
        assert_eq!(told("q;q;q;q", &[SCSI[0]]), [], "it names no threads");
    }
}
