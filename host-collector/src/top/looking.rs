//! The thread that looks on: it takes a recording's news, and makes seconds of them.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;
use vslice_core::units::HostNs;
use vslice_host::host_clock::host_now;
use vslice_record::live::{LiveBegun, LiveNews, LiveObserved, LiveRound, LiveSymbols};
use vslice_record::{Counted, LiveCounters};
use vslice_report::live::{
    LeftOut, LiveAnalysis, ObservedTally, Reading, SECOND_NS, Second, Unseen,
};

/// Readings of counters that wait for their second, at most: the analysis is never so far behind, or has left out more.
const READINGS_MAX: usize = 64;

/// Rounds of events that came before the window was open, at most.
const EARLY_MAX: usize = 1024;

/// Between two looks at the clock.
const TURN: Duration = Duration::from_millis(100);

/// Takes all news, and hands on a second when it is over. What nobody takes in time is let go and counted.
pub(crate) fn look(news: &Receiver<LiveNews>, observes: bool, seconds: SyncSender<Second>) {
    let symbols = LiveSymbols::load();
    let mut early = Vec::new();
    let begun = loop {
        match news.recv() {
            Ok(LiveNews::Begun(begun)) => break begun,
            Ok(LiveNews::Round(round)) if early.len() < EARLY_MAX => early.push(round),
            Ok(_) => {}
            Err(_) => return,
        }
    };
    let mut looking = Looking::new(*begun, symbols, observes, seconds);
    early.into_iter().for_each(|round| looking.round(round));
    let mut end = None;
    loop {
        match news.recv_timeout(TURN) {
            Ok(LiveNews::Round(round)) => looking.round(round),
            Ok(LiveNews::Observed(observed)) => {
                for LiveObserved { vm, latencies } in &observed {
                    looking.observed.add(*vm, latencies);
                }
            }
            Ok(LiveNews::Over(at)) => {
                looking.read(at);
                end = Some(at);
            }
            Ok(LiveNews::Begun(_)) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        looking.turn(end);
    }
}

struct Looking {
    analysis: LiveAnalysis,
    symbols: LiveSymbols,
    counters: LiveCounters,
    observed: ObservedTally,
    readings: VecDeque<(HostNs, Reading)>,
    /// When counters are to be read next.
    next_reading: HostNs,
    seconds: SyncSender<Second>,
    dropped_count: u64,
}

impl Looking {
    fn new(
        begun: LiveBegun,
        symbols: LiveSymbols,
        observes: bool,
        seconds: SyncSender<Second>,
    ) -> Looking {
        let LiveBegun { manifest, threads, counters } = begun;
        let vms_count = manifest.vms.len();
        let first = reading(counters.read(), Vec::new());
        let analysis = LiveAnalysis::new(manifest, &threads, first);
        Looking {
            next_reading: analysis.second_end(),
            analysis,
            symbols,
            counters,
            observed: ObservedTally::new(vms_count, observes),
            readings: VecDeque::new(),
            seconds,
            dropped_count: 0,
        }
    }

    fn round(&mut self, round: LiveRound) {
        for frames in &round.stacks {
            self.analysis.stack(self.symbols.frame_names(frames));
        }
        for (number, path) in &round.groups {
            self.analysis.group(*number, path.as_deref());
        }
        if let Some((from, until, count)) = round.left_out {
            self.analysis.left_out(LeftOut { from, until, count });
        }
        self.analysis.push(round.events, round.all_came_until);
    }

    /// Reads counters if a second has ended by the clock, and tells those that are over by the events; all events up to
    /// `end`, if that is known, are there.
    fn turn(&mut self, end: Option<HostNs>) {
        let now = host_now();
        if end.is_none() && now >= self.next_reading {
            self.read(self.next_reading);
            while self.next_reading <= now {
                self.next_reading = HostNs(self.next_reading.0 + SECOND_NS);
            }
        }
        loop {
            let second_end = self.analysis.second_end();
            if let Some(end) = end.filter(|end| *end < second_end) {
                if self.analysis.has_all_until(end) {
                    let reading = self.reading_at(end);
                    let second = self.analysis.end(end, &reading);
                    second.into_iter().for_each(|second| self.tell(second));
                }
                return;
            }
            if !self.analysis.advance() {
                return;
            }
            let reading = self.reading_at(second_end);
            let second = self.analysis.close(&reading);
            self.tell(second);
        }
    }

    fn read(&mut self, at: HostNs) {
        let observed = self.observed.take();
        self.readings.push_back((at, reading(self.counters.read(), observed)));
        if self.readings.len() > READINGS_MAX {
            self.readings.pop_front();
        }
    }

    /// What was read at that time, or nothing if nobody did.
    fn reading_at(&mut self, at: HostNs) -> Reading {
        while self.readings.front().is_some_and(|(time, _)| *time < at) {
            self.readings.pop_front();
        }
        self.readings
            .pop_front_if(|(time, _)| *time == at)
            .map_or_else(Reading::default, |(_, reading)| reading)
    }

    fn tell(&mut self, mut second: Second) {
        second.losses.dropped_seconds = self.dropped_count;
        match self.seconds.try_send(second) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => self.dropped_count = 0,
            Err(TrySendError::Full(_)) => self.dropped_count += 1,
        }
    }
}

fn reading(
    counted: Counted,
    observed: Vec<Option<vslice_report::live::second::ObservedSecond>>,
) -> Reading {
    let kept = counted.kept.into_iter().map(|(tid, _)| (tid, Unseen::Kept));
    let asleep = counted.asleep.into_iter().map(|tid| (tid, Unseen::Asleep));
    Reading {
        realtime_ns: Some(counted.realtime_ns),
        run_delay_ns: counted.run_delay_ns.into_iter().collect(),
        unseen: kept.chain(asleep).collect::<HashMap<_, _>>(),
        halt_poll_ns: counted.halt_poll_ns,
        stolen_ns: counted.stolen_ns,
        cpu_ns: Some(counted.cpu_ns),
        observed,
    }
}
