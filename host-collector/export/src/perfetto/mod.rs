//! A trace for Perfetto (ui.perfetto.dev, `trace_processor`).
//!
//! ```text
//! events ------------------> pcpus, bundle ----.
//! spans -------------------> threads, state ---+
//! who was there then ------> delays: arrows ---+--> trace ----> packets --> the file
//! lock waits, exits -------> threads ----------+    (tracks,    (compressed,
//! requests ----------------> requests ---------+     words)      some at a time)
//! losses, the run's end ---> about ------------'
//! ```
//!
//! Perfetto makes the lanes of pCPUs and the states of threads from the scheduler's events, as its own recorder has
//! them. All else are tracks with slices. Arrows lead from a lock's releaser to who slept on it, and from whoever was on
//! a pCPU to who waits for it.

mod about;
mod bundle;
mod delays;
mod packets;
mod pcpus;
#[cfg(test)]
mod read;
mod requests;
mod schema;
mod state;
#[cfg(test)]
mod tests;
mod threads;
mod trace;
mod wire;

use self::about::About;
use self::pcpus::Pcpus;
use self::requests::Requests;
use self::threads::Threads;
use self::trace::Trace;
use std::io::Write;
use vslice_core::host_event::{HostEvent, HostEventKind};
use vslice_core::join::{Breakdown, GuestRequest, Unplaced};
use vslice_core::task::VmIndex;
use vslice_core::timeline::{Exit, LockWait, Span, Tasks};
use vslice_report::analyse::observer::{MeasuredWindow, Observer, Run, RunEnd};
use vslice_report::who::VmNames;
use vslice_trace::manifest::Manifest;
use vslice_wire::Dropped;

/// Of the kernels whose release a run does not say: all that vslice can record have the states of this one. A reader
/// takes what is before the second dot for the version (perfetto: `system_info_tracker.cc`).
const OLDEST_RELEASE: &str = "4.14.0 or newer (not recorded)";

/// Writes a run as a trace.
#[derive(Debug)]
pub struct PerfettoTrace<W: Write>(Progress<W>);

#[derive(Debug)]
enum Progress<W: Write> {
    NotStarted(W),
    /// Between two of these.
    Moved,
    Started(Box<Started<W>>),
}

#[derive(Debug)]
struct Started<W: Write> {
    /// The time of which pCPUs are shown; `None`: all that was recorded.
    stretch: Option<MeasuredWindow>,
    trace: Trace<W>,
    names: VmNames,
    about: About,
    pcpus: Pcpus,
    threads: Threads,
    requests: Requests,
}

impl<W: Write> PerfettoTrace<W> {
    /// Into this file.
    pub fn new(file: W) -> PerfettoTrace<W> {
        PerfettoTrace(Progress::NotStarted(file))
    }

    /// The file, once the run has come to its end.
    ///
    /// # Errors
    /// With the first error of writing.
    pub fn finish(self) -> std::io::Result<W> {
        match self.0 {
            Progress::NotStarted(file) => Ok(file),
            Progress::Started(started) => started.trace.finish(),
            Progress::Moved => Err(std::io::Error::other("the trace was given up")),
        }
    }

    fn started(&mut self) -> Option<&mut Started<W>> {
        match &mut self.0 {
            Progress::Started(started) => Some(started),
            Progress::NotStarted(_) | Progress::Moved => None,
        }
    }
}

impl<W: Write> Started<W> {
    fn new(file: W, run: &Run<'_>) -> Started<W> {
        let mut trace = Trace::new(file, run.window.start);
        write_system(run.manifest, &mut trace);
        let about = About::start(&mut trace);
        let threads = Threads::start(run, &mut trace);
        Started {
            stretch: run.chosen.is_stretch().then(|| run.chosen.stretch()),
            names: VmNames::of(run.manifest),
            about,
            pcpus: Pcpus::of(run.manifest),
            requests: Requests::of(run.manifest, &threads.processes),
            threads,
            trace,
        }
    }
}

/// By the release Perfetto knows what the bits of a thread's state mean.
fn write_system<W: Write>(manifest: &Manifest, trace: &mut Trace<W>) {
    let host = manifest.environment.as_ref();
    let release = host.and_then(|host| host.kernel_release.as_deref());
    trace.packet(None, |packet| {
        packet.message(schema::packet::SYSTEM_INFO, |info| {
            info.message(schema::system::UTSNAME, |name| {
                name.text(schema::system::SYSNAME, "Linux");
                let release = release.unwrap_or(OLDEST_RELEASE);
                name.text(schema::system::RELEASE, &trace::shown(release));
            });
        });
    });
}

impl<W: Write> Observer for PerfettoTrace<W> {
    fn start(&mut self, run: &Run<'_>) {
        self.0 = match std::mem::replace(&mut self.0, Progress::Moved) {
            Progress::NotStarted(file) => Progress::Started(Box::new(Started::new(file, run))),
            other => other,
        };
    }

    fn event(&mut self, event: &HostEvent, tasks: &Tasks) {
        let Some(started) = self.started() else { return };
        let Started { stretch, trace, names, about, pcpus, threads, .. } = started;
        threads.event(event, tasks, names, pcpus, trace);
        if stretch.is_some_and(|stretch| !stretch.contains(event.time)) {
            return;
        }
        pcpus.event(event, tasks, names, trace);
        if let HostEventKind::Lost { until, count } = event.kind {
            about.lost(event.pcpu, [event.time, until], count, trace);
        }
    }

    fn span(&mut self, span: &Span) {
        let Some(started) = self.started() else { return };
        started.threads.span(span, &started.names, &mut started.trace);
    }

    fn lock_wait(&mut self, wait: &LockWait) {
        if let Some(started) = self.started() {
            started.threads.lock_wait(wait, &mut started.trace);
        }
    }

    fn exit(&mut self, exit: &Exit) {
        if let Some(started) = self.started() {
            started.threads.exit(exit, &mut started.trace);
        }
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        let Some(started) = self.started() else { return };
        started.requests.request(vm, breakdown, &started.names, &mut started.trace);
    }

    fn unplaced_request(&mut self, _: VmIndex, _: &GuestRequest, _: Unplaced) {
        if let Some(started) = self.started() {
            started.about.unplaced_count += 1;
        }
    }

    fn dropped_requests(&mut self, _: VmIndex, dropped: &Dropped) {
        if let Some(started) = self.started() {
            started.about.dropped_count += dropped.count;
        }
    }

    fn lost_observed(&mut self, _: VmIndex, lost: &Dropped) {
        if let Some(started) = self.started() {
            started.about.lost_observed_count += lost.count;
        }
    }

    fn end(&mut self, run: &Run<'_>, end: &RunEnd<'_>) {
        let Some(started) = self.started() else { return };
        let Started { trace, about, pcpus, threads, requests, .. } = started;
        threads.describe(end.tasks, trace);
        pcpus.finish(end.is_torn, trace);
        about.end(run, end, pcpus, requests, trace);
    }
}
