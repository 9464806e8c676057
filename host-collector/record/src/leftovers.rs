//! What a vslice that was killed has left on this host.

use crate::watcher::Watcher;
use vslice_host::journal::Undone;
use vslice_host::{io_scheduler, pin, plug, scratch};

/// Restores what killed collectors have left changed, and reports it.
pub fn undo(watcher: &mut dyn Watcher) {
    let directory = scratch::parent_dir();
    let undone = [
        (pin::undo_stale_journals(&directory), "affinities of threads"),
        (io_scheduler::undo_stale_journals(&directory), "I/O schedulers of disks"),
        (plug::undo_stale_journals(&directory), "ports of VMs"),
    ];
    for (undone, what) in undone {
        // Journals that cannot be read are none that can be undone; the run is not hurt by them.
        let Ok(Undone { count, failed_count }) = undone else { continue };
        if count > 0 {
            watcher.stage(&format!("restored {what} that a killed vslice had changed: {count}"));
        }
        if failed_count > 0 {
            watcher.stage(&format!(
                "could not restore {what} that a killed vslice had changed: {failed_count}; the next \
                vslice will try again"
            ));
        }
    }
}
