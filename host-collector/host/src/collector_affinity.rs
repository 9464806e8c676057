//! Keeps the collector out of the way: on the pCPU that the plan has for it.

use crate::{pin, procfs};
use vslice_core::units::{PcpuId, Tid};

/// Keeps all threads of this process, and those that they start, on one pCPU until it is dropped.
///
/// A thread that cannot be moved disturbs the run but does not spoil it: it is recorded like any other
/// thread, and reported as the collector's.
#[derive(Debug)]
pub struct CollectorAffinity {
    home: PcpuId,
    previous: Vec<(Tid, Vec<PcpuId>)>,
}

impl CollectorAffinity {
    /// Moves all current threads of this process.
    pub fn move_to(home: PcpuId) -> CollectorAffinity {
        CollectorAffinity::of(procfs::tids(Tid(std::process::id())).unwrap_or_default(), home)
    }

    fn of(tids: Vec<Tid>, home: PcpuId) -> CollectorAffinity {
        let mut previous = Vec::new();
        for tid in tids {
            if let Ok(affinity) = pin::affinity(tid)
                && pin::set_affinity(tid, &[home]).is_ok()
            {
                previous.push((tid, affinity));
            }
        }
        CollectorAffinity { home, previous }
    }
}

impl Drop for CollectorAffinity {
    fn drop(&mut self) {
        for (tid, affinity) in &self.previous {
            // Whoever was moved again since is not ours any more, nor is a later thread of that id.
            if pin::affinity(*tid).is_ok_and(|now| now == [self.home]) {
                let _may_have_ended = pin::set_affinity(*tid, affinity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_thread_goes_home_and_back() {
        let (tell, told) = channel();
        let (release, released) = channel::<()>();
        let thread = std::thread::spawn(move || {
            let own = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
            tell.send(Tid(own)).unwrap();
            let _released = released.recv();
        });
        let tid = told.recv().unwrap();
        let before = pin::affinity(tid).unwrap();
        let home = CollectorAffinity::of(vec![tid], before[0]);
        assert_eq!(pin::affinity(tid).unwrap(), [before[0]]);
        drop(home);
        assert_eq!(pin::affinity(tid).unwrap(), before);
        drop(release);
        thread.join().unwrap();
    }
}
