//! Which switches and wakings the kernel is asked for, as tracepoint filters. Pure.
//!
//! No record may match two of the filters of one tracepoint, see `vslice_perf::filter`.

use vslice_perf::filter::{Filters, Numbers, both, joined, none_of, one_of};

/// Switches where one of `stacked` leaves; they are recorded with a stack. For every pCPU.
pub(super) fn stacked_leave(stacked: &Numbers) -> Filters {
    joined(one_of("prev_pid", stacked))
}

/// All other switches. For a watched pCPU.
pub(super) fn others_leave(stacked: &Numbers) -> Filters {
    none_of("prev_pid", stacked)
}

/// Switches from or to one of `threads` where none of `stacked` leaves. For a pCPU that is not
/// watched.
///
/// Together with [`stacked_leave`] these are the switches from or to one of `threads`, if all of
/// `stacked` are among them.
pub(super) fn threads_switch(stacked: &Numbers, threads: &Numbers) -> Filters {
    let others = threads.difference(stacked).copied().collect();
    let leave = one_of("prev_pid", &others);
    let come = both(&one_of("next_pid", threads), &none_of("prev_pid", threads));
    joined(leave.into_iter().chain(come))
}

/// Switches from or to one of `new` that nobody asked for while `known` were asked for. For a pCPU
/// that is not watched.
pub(super) fn new_threads_switch(new: &Numbers, known: &Numbers) -> Filters {
    let either = new | known;
    let leave = both(&one_of("prev_pid", new), &none_of("next_pid", known));
    let come = both(&one_of("next_pid", new), &none_of("prev_pid", &either));
    joined(leave.into_iter().chain(come))
}

/// Wakings on the pCPU `here`: of `threads`, and of strangers who may take a watched pCPU from one
/// of `threads`.
///
/// A stranger may if the pCPU that it last ran on is a watched one, and one of `threads` runs there.
/// Who runs on another pCPU no filter can tell, so all such wakings are asked for; who runs here is
/// the current task. So strangers who wake each other on a watched pCPU cost a filter and no record.
pub(super) fn wakings(threads: &Numbers, watched: &Numbers, here: u32) -> Filters {
    let strangers = both(&none_of("pid", threads), &strangers(threads, watched, here));
    joined(one_of("pid", threads).into_iter().chain(strangers))
}

/// Wakings of `new` on the pCPU `here` that nobody asked for while `known` were asked for.
pub(super) fn new_wakings(new: &Numbers, known: &Numbers, watched: &Numbers, here: u32) -> Filters {
    let mut unasked = none_of("target_cpu", watched);
    if watched.contains(&here) {
        unasked.extend(both(&[format!("target_cpu=={here}")], &none_of("common_pid", known)));
    }
    joined(both(&one_of("pid", new), &unasked))
}

/// That a woken thread, which is none of `threads`, may take a watched pCPU from one of them.
fn strangers(threads: &Numbers, watched: &Numbers, here: u32) -> Vec<String> {
    let mut elsewhere = watched.clone();
    let is_watched = elsewhere.remove(&here);
    let mut pieces = one_of("target_cpu", &elsewhere);
    if is_watched {
        pieces.extend(both(&[format!("target_cpu=={here}")], &one_of("common_pid", threads)));
    }
    pieces
}

/// What one of `threads` does. For every pCPU.
pub(super) fn current_is(threads: &Numbers) -> Filters {
    joined(one_of("common_pid", threads))
}

/// What `disks` do. For every pCPU.
pub(super) fn disks(disks: &Numbers) -> Filters {
    joined(one_of("dev", disks))
}

#[cfg(test)]
mod tests;
