//! A recording as it goes on, for whoever looks on: the same events that a run directory gets, in rounds.
//!
//! Whoever looks on may be slow, and neither the rings nor the guests wait for it: what finds no room is left out, and
//! how much that was is told.

use crate::live_counters::LiveCounters;
use crate::perf::{EventSink, SinkError, Symbols};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use vslice_core::host_event::{HostEvent, StackId};
use vslice_core::units::{HostNs, PcpuId};
use vslice_host::host_clock::host_now;
use vslice_trace::manifest::Manifest;
use vslice_trace::thread::HostThread;
use vslice_wire::BlockOperation;

/// Rounds that wait for whoever looks on, at most: at ten in a second some seconds.
const WAITING_MAX: usize = 64;

/// Events of one round at most: several times what all rings hold of a busy host of some ten pCPUs.
const ROUND_EVENTS_MAX: usize = 1 << 18;

/// Rounds are this far apart, unless there are many events.
const ROUND_NS: u64 = 50_000_000;

/// A round with so many is handed on at once.
const ROUND_EVENTS_ENOUGH: usize = 1 << 14;

/// A record has its time before it is in its ring, and what writes it may be interrupted in between, or be kept off its
/// pCPU by a hypervisor. What happened so long before the rings were read is certain to be there, nearly: what comes
/// later still is counted as late.
const SETTLED_NS: u64 = 20_000_000;

/// What whoever looks on is told.
#[derive(Debug)]
pub enum LiveNews {
    /// The measured window is open. Events may have come before.
    Begun(Box<LiveBegun>),
    /// What the rings had.
    Round(LiveRound),
    /// Observed requests that came from guests.
    Observed(Vec<LiveObserved>),
    /// The window was closed then. Events may come after.
    Over(HostNs),
}

/// What is known when the window opens.
#[derive(Debug)]
pub struct LiveBegun {
    /// The run's manifest as it is then.
    pub manifest: Manifest,
    /// The threads of the host.
    pub threads: Vec<HostThread>,
    /// What the kernel counts of the VMs.
    pub counters: LiveCounters,
}

/// What the rings had when they were read, once or a few times.
#[derive(Debug, Default)]
pub struct LiveRound {
    /// The events; those of one pCPU are in order, and follow those of the rounds before.
    pub events: Vec<HostEvent>,
    /// All events that happened before have come with this round and those before it, but for late ones.
    pub all_came_until: HostNs,
    /// Stacks that events of this round are the first to name, in order of their ids, innermost frame first.
    pub stacks: Vec<Box<[u64]>>,
    /// Control groups by their numbers, with their paths.
    pub groups: Vec<(u64, Option<String>)>,
    /// Events that were left out before these: from when until when, and how many.
    pub left_out: Option<(HostNs, HostNs, u64)>,
}

/// Observed requests of one VM, by its place among the recording's.
#[derive(Debug, Default)]
pub struct LiveObserved {
    /// The VM's place.
    pub vm: usize,
    /// From queued to completed in nanoseconds, as far as they are known.
    pub latencies: Vec<(BlockOperation, u64)>,
}

/// Where a recording tells how it goes on.
#[derive(Debug, Clone)]
pub struct LiveTap(SyncSender<LiveNews>);

impl LiveTap {
    /// A tap, and where its news come out.
    #[must_use]
    pub fn new() -> (LiveTap, Receiver<LiveNews>) {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        (LiveTap(sender), receiver)
    }

    /// Tells it, and waits until there is room: not to be called by whoever reads rings or guests.
    pub(crate) fn tell(&self, news: LiveNews) {
        let _nobody_may_look_any_more = self.0.send(news);
    }

    /// Tells it if there is room, or gives it back.
    pub(crate) fn offer(&self, news: LiveNews) -> Result<(), LiveNews> {
        match self.0.try_send(news) {
            Err(TrySendError::Full(news)) => Err(news),
            Ok(()) | Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }
}

/// The kernel's functions on stacks, by name.
#[derive(Debug)]
pub struct LiveSymbols(Option<Symbols>);

impl LiveSymbols {
    /// Those of this boot; none if they cannot be read.
    #[must_use]
    pub fn load() -> LiveSymbols {
        LiveSymbols(Symbols::load().ok())
    }

    /// The names of a stack's frames.
    #[must_use]
    pub fn frame_names(&self, frames: &[u64]) -> Vec<String> {
        self.0.as_ref().map(|symbols| symbols.frame_names(frames)).unwrap_or_default()
    }
}

/// Passes on what is recorded, to a sink that keeps it and to whoever looks on.
#[derive(Debug)]
pub(crate) struct LiveSink<Sink> {
    /// `None` if nothing is kept.
    kept: Option<Sink>,
    tap: LiveTap,
    round: LiveRound,
    sent: HostNs,
    /// When the rings had last been read before this round.
    read: HostNs,
}

impl<Sink: EventSink> LiveSink<Sink> {
    pub(crate) fn new(kept: Option<Sink>, tap: LiveTap) -> LiveSink<Sink> {
        let now = host_now();
        LiveSink { kept, tap, round: LiveRound::default(), sent: now, read: now }
    }

    /// The rings have been read.
    fn round(&mut self) {
        let now = host_now();
        let is_due =
            now.since_ns(self.sent) >= ROUND_NS || self.round.events.len() >= ROUND_EVENTS_ENOUGH;
        let read = std::mem::replace(&mut self.read, now);
        if !is_due {
            return;
        }
        self.sent = now;
        // What happened before the reading before this one is there.
        self.round.all_came_until = HostNs(read.0.saturating_sub(SETTLED_NS));
        let round = std::mem::take(&mut self.round);
        if let Err(LiveNews::Round(round)) = self.tap.offer(LiveNews::Round(round)) {
            self.keep_for_next(round);
        }
    }

    /// There was no room: names and losses are told with the next round, events are not.
    fn keep_for_next(&mut self, round: LiveRound) {
        let count = round.events.len() as u64;
        let times = || round.events.iter().map(|event| event.time);
        let of_round = times().min().zip(times().max()).map(|(from, until)| (from, until, count));
        self.round = LiveRound { events: Vec::new(), left_out: round.left_out, ..round };
        self.leave_out(of_round);
    }

    fn leave_out(&mut self, events: Option<(HostNs, HostNs, u64)>) {
        let Some((from, until, count)) = events else { return };
        self.round.left_out = Some(match self.round.left_out {
            Some((first, last, before)) => (first.min(from), last.max(until), before + count),
            None => (from, until, count),
        });
    }
}

impl<Sink: EventSink> EventSink for LiveSink<Sink> {
    fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
        if self.round.events.len() + events.len() <= ROUND_EVENTS_MAX {
            self.round.events.extend_from_slice(events);
        } else if let (Some(first), Some(last)) = (events.first(), events.last()) {
            self.leave_out(Some((first.time, last.time, events.len() as u64)));
        }
        self.kept.as_mut().map_or(Ok(()), |kept| kept.batch(pcpu, events))
    }

    fn stack(&mut self, id: StackId, frames: &[u64]) -> Result<(), SinkError> {
        self.round.stacks.push(frames.into());
        self.kept.as_mut().map_or(Ok(()), |kept| kept.stack(id, frames))
    }

    fn group(&mut self, number: u64, path: Option<&str>) -> Result<(), SinkError> {
        self.round.groups.push((number, path.map(str::to_owned)));
        self.kept.as_mut().map_or(Ok(()), |kept| kept.group(number, path))
    }

    fn tick(&mut self) -> Result<(), SinkError> {
        self.round();
        self.kept.as_mut().map_or(Ok(()), EventSink::tick)
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let mut round = std::mem::take(&mut self.round);
        round.all_came_until = HostNs(u64::MAX);
        self.tap.tell(LiveNews::Round(round));
        self.kept.as_mut().map_or(Ok(()), EventSink::finish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vslice_core::host_event::HostEventKind;
    use vslice_core::units::Tid;

    type Batch = (PcpuId, Vec<HostEvent>);

    /// Keeps events, for a test to look at.
    struct Keeps(std::sync::mpsc::Sender<Batch>);

    impl EventSink for Keeps {
        fn batch(&mut self, pcpu: PcpuId, events: &[HostEvent]) -> Result<(), SinkError> {
            Ok(self.0.send((pcpu, events.to_vec()))?)
        }
    }

    fn event(time: u64) -> HostEvent {
        let kind = HostEventKind::Exit { tid: Tid(1) };
        HostEvent { time: HostNs(time), pcpu: PcpuId(0), kind }
    }

    fn due(sink: &mut LiveSink<Keeps>) {
        sink.sent = HostNs(0);
        sink.tick().unwrap();
    }

    fn rounds(news: &Receiver<LiveNews>) -> Vec<LiveRound> {
        let round = |news| match news {
            LiveNews::Round(round) => Some(round),
            _ => None,
        };
        news.try_iter().filter_map(round).collect()
    }

    #[test]
    fn whoever_looks_on_gets_what_is_kept() {
        let (sender, kept) = std::sync::mpsc::channel();
        let (tap, news) = LiveTap::new();
        let mut sink = LiveSink::new(Some(Keeps(sender)), tap);
        let before = host_now();
        sink.stack(StackId(0), &[7]).unwrap();
        sink.group(3, Some("/a.scope")).unwrap();
        sink.batch(PcpuId(0), &[event(5), event(6)]).unwrap();
        due(&mut sink);
        let round = rounds(&news).remove(0);
        assert_eq!(round.events, [event(5), event(6)]);
        assert_eq!(kept.try_recv().unwrap().1, round.events);
        assert_eq!((&*round.stacks[0], round.groups.len()), (&[7_u64][..], 1));
        assert!(round.all_came_until < before, "only what happened before the reading before");
        sink.batch(PcpuId(0), &[event(8)]).unwrap();
        sink.finish().unwrap();
        let last = rounds(&news).remove(0);
        assert_eq!((last.events, last.all_came_until), (vec![event(8)], HostNs(u64::MAX)));
    }

    #[test]
    fn what_finds_no_room_is_left_out_and_told_but_for_names() {
        let (sender, kept) = std::sync::mpsc::channel();
        let (tap, news) = LiveTap::new();
        let mut sink = LiveSink::new(Some(Keeps(sender)), tap);
        for _ in 0..WAITING_MAX {
            due(&mut sink);
        }
        for (time, id) in [(10, 0), (20, 1)] {
            sink.stack(StackId(id), &[time]).unwrap();
            sink.batch(PcpuId(0), &[event(time), event(time + 1)]).unwrap();
            due(&mut sink);
        }
        assert_eq!(rounds(&news).len(), WAITING_MAX);
        sink.batch(PcpuId(0), &[event(30)]).unwrap();
        due(&mut sink);
        let round = rounds(&news).remove(0);
        assert_eq!(round.events, [event(30)]);
        assert_eq!(round.left_out, Some((HostNs(10), HostNs(21), 4)));
        assert_eq!(round.stacks.len(), 2, "later events have them too");
        assert_eq!(kept.try_iter().count(), 3, "what is kept is whole");
    }

    #[test]
    fn a_round_is_bounded() {
        let (tap, news) = LiveTap::new();
        let mut sink = LiveSink::<Keeps>::new(None, tap);
        sink.batch(PcpuId(0), &vec![event(1); ROUND_EVENTS_MAX]).unwrap();
        sink.batch(PcpuId(0), &[event(2)]).unwrap();
        due(&mut sink);
        let round = rounds(&news).remove(0);
        assert_eq!(round.events.len(), ROUND_EVENTS_MAX);
        assert_eq!(round.left_out, Some((HostNs(2), HostNs(2), 1)));
    }
}
