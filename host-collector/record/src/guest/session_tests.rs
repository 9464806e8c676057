//! The session against guests that are threads of this test: well-behaved, dying and hostile ones.

#[path = "session_tests/hostile.rs"]
mod hostile;
#[path = "session_tests/observing.rs"]
mod observing;

use super::frames::HOG_GAPS_KEPT_MAX;
use super::*;
use hostile::{hog_gaps, host_time};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use vslice_wire::{
    ClockKind, DoneReason, GuestDisk, GuestTicks, HogGaps, HostTime, Observed, PROTOCOL_VERSION,
    Pong, Severity,
};

/// A sink that keeps everything, or fails at the first request as a full disk would.
#[derive(Debug, Default)]
struct Kept {
    requests: Vec<Request>,
    dropped: Vec<Dropped>,
    exchanges: Vec<VcpuId>,
    hog_gaps: Vec<(VcpuId, HogGap)>,
    observed: Vec<ObservedItem>,
    observed_bytes: u64,
    disk_is_full: bool,
}

impl GuestSink for &mut Kept {
    fn requests(&mut self, requests: &[Request]) -> Result<(), SinkError> {
        if self.disk_is_full {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        self.requests.extend_from_slice(requests);
        Ok(())
    }

    fn dropped(&mut self, dropped: &Dropped) -> Result<(), SinkError> {
        self.dropped.push(*dropped);
        Ok(())
    }

    fn exchange(&mut self, vcpu: VcpuId, _exchange: &Exchange) -> Result<(), SinkError> {
        self.exchanges.push(vcpu);
        Ok(())
    }

    fn hog_gaps(&mut self, vcpu: VcpuId, gaps: &[HogGap]) -> Result<(), SinkError> {
        self.hog_gaps.extend(gaps.iter().map(|gap| (vcpu, *gap)));
        Ok(())
    }

    fn observed(&mut self, items: &[ObservedItem]) -> Result<(), SinkError> {
        self.observed.extend_from_slice(items);
        Ok(())
    }

    fn observed_bytes(&self) -> u64 {
        self.observed_bytes
    }
}

/// The guest's end: answers pings by itself, hands every other frame to the test's script.
struct FakeGuest {
    stream: UnixStream,
    deframer: Deframer<HostFrame>,
    ticks: u64,
}

impl FakeGuest {
    fn say(&mut self, frame: &GuestFrame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame that is no ping; `None` when the collector has closed the connection.
    fn hear(&mut self) -> Option<HostFrame> {
        loop {
            match self.hear_any()? {
                HostFrame::Ping(_) => {}
                frame => return Some(frame),
            }
        }
    }

    /// The next frame; a ping has been answered.
    fn hear_any(&mut self) -> Option<HostFrame> {
        let mut byte = [0; 1];
        loop {
            if self.stream.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            let Some(frame) = self.deframer.next_frame(&mut &byte[..]).unwrap() else { continue };
            if let HostFrame::Ping(ping) = frame {
                self.ticks += 10;
                let now = GuestTicks(self.ticks);
                let vcpu = ping.vcpu.unwrap_or(0);
                self.say(&GuestFrame::Pong(Pong { id: ping.id, vcpu, received: now, sent: now }));
            }
            return Some(frame);
        }
    }
}

fn hello() -> GuestFrame {
    GuestFrame::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        agent_version: String::from("0.1.0"),
        kernel_release: String::from("6.1.0"),
        vcpu_count: 2,
        tsc_invariant: false,
    })
}

fn ready() -> GuestFrame {
    let target = String::from("/dev/vda");
    let (clock, clock_source) = (ClockKind::Tsc, "kvm-clock".to_owned());
    GuestFrame::Ready(Ready { clock, target, target_bytes: 1 << 26, clock_source, disk: None })
}

fn request(index: u64) -> Request {
    Request {
        index,
        submitted: GuestTicks(1000 * index),
        completed: GuestTicks(1000 * index + 500),
        vcpu_submitted: 1,
        vcpu_completed: 1,
        result: 4096,
    }
}

fn done(reason: DoneReason) -> GuestFrame {
    GuestFrame::Done(Done { reason, requests: 2, dropped: 0 })
}

const CALIBRATION_EXCHANGES: u32 = 100;

fn plan() -> SessionPlan {
    SessionPlan {
        plan_json: b"{}".to_vec(),
        requests_max: 3,
        observes: false,
        stamping_vcpus: vec![VcpuId(0), VcpuId(1)],
        calibration_exchanges: CALIBRATION_EXCHANGES,
        visit_interval: Duration::from_secs(60),
        silence_max: Duration::from_secs(30),
    }
}

/// Runs a session over a socket pair against `guest`, with `director` as the run.
fn converse(
    kept: &mut Kept,
    guest: impl FnOnce(FakeGuest) + Send,
    director: impl FnOnce(Sender<Command>, Receiver<Progress>) + Send,
) -> Conversation {
    converse_by(plan(), kept, guest, director)
}

/// As [`converse`], by another plan.
fn converse_by(
    plan: SessionPlan,
    kept: &mut Kept,
    guest: impl FnOnce(FakeGuest) + Send,
    director: impl FnOnce(Sender<Command>, Receiver<Progress>) + Send,
) -> Conversation {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fake = FakeGuest { stream: theirs, deframer: Deframer::new(), ticks: 0 };
    let (command_sender, commands) = channel();
    let (progress, progress_receiver) = channel();
    let live = Live::default();
    thread::scope(|scope| {
        scope.spawn(|| guest(fake));
        scope.spawn(|| director(command_sender, progress_receiver));
        let connection = Connection::from_unix(ours).unwrap();
        Session::new(connection, plan, kept, commands, progress, &live)
            .converse(Duration::from_secs(5))
    })
}

/// The run as it normally is: start when ready, close when done.
fn direct(commands: Sender<Command>, progress: Receiver<Progress>) {
    for news in progress {
        let command = match news {
            Progress::Connected(_) | Progress::Noticed(_) => continue,
            Progress::Ready(_) => Command::Start,
            Progress::Done(_) => Command::Close,
        };
        let _session_may_be_over = commands.send(command);
    }
}

#[test]
fn a_whole_conversation_is_recorded() {
    let mut kept = Kept::default();
    let (record, result) = converse(
        &mut kept,
        |mut guest| {
            guest.say(&hello());
            assert_eq!(guest.hear(), Some(HostFrame::Plan(b"{}".to_vec())));
            guest.say(&ready());
            assert_eq!(guest.hear(), Some(HostFrame::Start));
            guest.say(&GuestFrame::Requests(vec![request(0), request(1)]));
            guest.say(&GuestFrame::Hogs(vec![HogCount { vcpu: 1, count: 77 }]));
            guest.say(&hog_gaps(1));
            guest.say(&host_time());
            guest.say(&done(DoneReason::Completed));
            assert_eq!(guest.hear(), Some(HostFrame::Bye));
        },
        direct,
    );
    result.unwrap();
    assert_eq!(kept.requests, [request(0), request(1)]);
    let on_vcpu1 = kept.exchanges.iter().filter(|vcpu| **vcpu == VcpuId(1)).count();
    assert_eq!(on_vcpu1, 2 * CALIBRATION_EXCHANGES as usize, "before the run and after it");
    assert_eq!(record.hogs, [HogCount { vcpu: 1, count: 77 }]);
    let gap = HogGap { start: GuestTicks(3), end: GuestTicks(9) };
    assert_eq!((kept.hog_gaps, record.hog_gaps_count), (vec![(VcpuId(1), gap)], 1));
    let [time] = &record.host_times[..] else { panic!("{:?}", record.host_times) };
    assert_eq!((time.vcpu, time.asked_ticks, time.answered_ticks), (VcpuId(1), 3, 9));
    assert!(time.earliest < time.latest && time.latest <= host_now());
    assert_eq!(record.done.unwrap().reason, DoneReason::Completed);
    assert_eq!(record.requests_count, 2);
}

#[test]
fn each_vcpu_that_stamps_is_visited_in_turn_while_the_guest_runs() {
    let mut kept = Kept::default();
    let visit_interval = Duration::from_millis(1);
    let guest = |mut guest: FakeGuest| {
        guest.say(&hello());
        guest.hear();
        guest.say(&ready());
        assert_eq!(guest.hear(), Some(HostFrame::Start));
        let mut visited = Vec::new();
        while visited.len() < 4 {
            match guest.hear_any().unwrap() {
                HostFrame::Ping(ping) => visited.extend(ping.vcpu),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(visited, [0, 1, 0, 1]);
        guest.say(&done(DoneReason::Completed));
        guest.hear();
    };
    let plan = SessionPlan { visit_interval, ..plan() };
    converse_by(plan, &mut kept, guest, direct).1.unwrap();
}

#[test]
fn a_stop_reaches_the_guest_and_what_it_had_is_kept() {
    let mut kept = Kept::default();
    let (stop_now, running) = sync_channel(1);
    let (record, result) = converse(
        &mut kept,
        move |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            assert_eq!(guest.hear(), Some(HostFrame::Start));
            stop_now.send(()).unwrap();
            assert_eq!(guest.hear(), Some(HostFrame::Stop));
            guest.say(&GuestFrame::Requests(vec![request(0)]));
            guest.say(&done(DoneReason::Stopped));
            guest.hear();
        },
        move |commands, progress| {
            for news in progress {
                match news {
                    Progress::Connected(_) | Progress::Noticed(_) => {}
                    Progress::Ready(_) => {
                        commands.send(Command::Start).unwrap();
                        running.recv().unwrap();
                        commands.send(Command::Stop).unwrap();
                    }
                    Progress::Done(_) => commands.send(Command::Close).unwrap(),
                }
            }
        },
    );
    result.unwrap();
    assert_eq!(kept.requests, [request(0)]);
    assert_eq!(record.done.unwrap().reason, DoneReason::Stopped);
}

#[test]
fn a_guest_that_dies_midway_leaves_what_it_sent() {
    let mut kept = Kept::default();
    let (_, result) = converse(
        &mut kept,
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            guest.hear();
            guest.say(&GuestFrame::Requests(vec![request(0)]));
        },
        direct,
    );
    assert!(
        matches!(result, Err(SessionError::Closed { .. } | SessionError::Connection(_))),
        "{result:?}"
    );
    assert_eq!(kept.requests, [request(0)]);
}

#[test]
fn another_protocol_version_is_refused() {
    let (_, result) = converse(
        &mut Kept::default(),
        |mut guest| {
            let GuestFrame::Hello(mut hello) = hello() else { unreachable!() };
            hello.protocol_version = 9;
            guest.say(&GuestFrame::Hello(hello));
            guest.hear();
        },
        direct,
    );
    assert!(matches!(result, Err(SessionError::Version { theirs: 9, .. })), "{result:?}");
}

#[test]
fn a_flood_of_requests_ends_the_session() {
    let (record, result) = converse(
        &mut Kept::default(),
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            guest.hear();
            guest.say(&GuestFrame::Requests((0..4).map(request).collect()));
            while guest.hear().is_some() {}
        },
        direct,
    );
    assert!(matches!(result, Err(SessionError::TooManyRequests { max: 3 })), "{result:?}");
    assert_eq!(record.requests_count, 0, "none of them was kept");
}

#[test]
fn bytes_that_are_no_frame_end_the_session() {
    let (_, result) = converse(
        &mut Kept::default(),
        |mut guest| {
            guest.stream.write_all(&[0xff; 64]).unwrap();
            guest.hear();
        },
        direct,
    );
    assert!(matches!(result, Err(SessionError::Frame(_))), "{result:?}");
}

#[test]
fn a_guest_that_cannot_run_its_plan_says_why() {
    let (_, result) = converse(
        &mut Kept::default(),
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            let text = String::from("no disk\x1b[2J in this guest");
            guest.say(&GuestFrame::Notice(Notice { severity: Severity::Error, text }));
            guest.say(&done(DoneReason::Failed));
            guest.hear();
        },
        direct,
    );
    let Err(SessionError::GuestFailed(text)) = result else { panic!("{result:?}") };
    assert_eq!(text, "no disk?[2J in this guest", "a terminal could obey it");
}

#[test]
fn a_full_disk_ends_the_session_with_its_reason() {
    let mut kept = Kept { disk_is_full: true, ..Kept::default() };
    let (_, result) = converse(
        &mut kept,
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            guest.hear();
            guest.say(&GuestFrame::Requests(vec![request(0)]));
            while guest.hear().is_some() {}
        },
        direct,
    );
    assert!(matches!(result, Err(SessionError::Sink(_))), "{result:?}");
}

#[test]
fn a_run_that_is_given_up_does_not_wait_for_its_guest() {
    let (_, result) = converse(
        &mut Kept::default(),
        |mut guest| while guest.hear().is_some() {},
        |commands, _progress| drop(commands),
    );
    assert!(matches!(result, Err(SessionError::GivenUp)), "{result:?}");
}

#[test]
fn a_pong_that_got_lost_during_the_run_does_not_keep_the_clock_from_being_closed() {
    let mut kept = Kept::default();
    let (_, result) = converse(
        &mut kept,
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            guest.hear();
            // The next ping is heard here, and not answered.
            let (mut byte, mut is_heard) = ([0; 1], false);
            while !is_heard {
                guest.stream.read_exact(&mut byte).unwrap();
                is_heard = guest.deframer.next_frame(&mut &byte[..]).unwrap().is_some();
            }
            guest.say(&done(DoneReason::Completed));
            assert_eq!(guest.hear(), Some(HostFrame::Bye));
        },
        direct,
    );
    result.unwrap();
}

/// Any frame that the protocol can carry, the ones that an agent sends as likely as the others.
fn any_frame() -> impl Strategy<Value = GuestFrame> {
    let ticks = || any::<u64>().prop_map(GuestTicks);
    let text = || "\\PC{0,20}|[\\x00-\\x9f]{0,20}";
    let reason = prop_oneof![
        Just(DoneReason::Completed),
        Just(DoneReason::Stopped),
        Just(DoneReason::Failed)
    ];
    let request = (any::<u64>(), ticks(), ticks(), any::<u16>(), any::<i32>()).prop_map(
        |(index, submitted, completed, vcpu, result)| Request {
            index,
            submitted,
            completed,
            vcpu_submitted: vcpu,
            vcpu_completed: !vcpu,
            result,
        },
    );
    let count = || prop_oneof![3 => 0..3_u64, 1 => any::<u64>()];
    prop_oneof![
        Just(hello()),
        (text(), count()).prop_map(|(target, target_bytes)| GuestFrame::Ready(Ready {
            clock: ClockKind::MonotonicRaw,
            target,
            target_bytes,
            clock_source: String::new(),
            disk: None
        })),
        (0..300_u64, any::<u16>(), ticks(), ticks()).prop_map(|(id, vcpu, received, sent)| {
            GuestFrame::Pong(Pong { id, vcpu, received, sent })
        }),
        prop::collection::vec(request, 0..3).prop_map(GuestFrame::Requests),
        (count(), ticks(), ticks()).prop_map(|(count, first, last)| GuestFrame::Dropped(Dropped {
            count,
            first,
            last
        })),
        (any::<u16>(), count())
            .prop_map(|(vcpu, count)| GuestFrame::Hogs(vec![HogCount { vcpu, count }])),
        (any::<u16>(), ticks(), ticks()).prop_map(|(vcpu, start, end)| {
            GuestFrame::HogGaps(HogGaps { vcpu, gaps: vec![HogGap { start, end }] })
        }),
        (any::<u16>(), ticks(), any::<u64>(), ticks()).prop_map(
            |(vcpu, before, realtime_ns, after)| {
                GuestFrame::HostTime(HostTime { vcpu, before, realtime_ns, after })
            }
        ),
        text().prop_map(|text| GuestFrame::Notice(Notice::new(Severity::Error, text))),
        (reason, count(), count()).prop_map(|(reason, requests, dropped)| {
            GuestFrame::Done(Done { reason, requests, dropped })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever a guest says, in whatever order: the session ends, and neither its sink nor its
    /// record gets more than the plan allows.
    #[test]
    fn no_guest_gets_more_recorded_than_its_plan_allows(
        is_started: bool,
        frames in prop::collection::vec(any_frame(), 0..30),
    ) {
        let mut kept = Kept::default();
        let (record, _) = converse(
            &mut kept,
            |guest| if is_started { guest.start_and_say(&frames) } else { guest.say_all(&frames) },
            direct,
        );
        let dropped_count: u64 = kept.dropped.iter().map(|dropped| dropped.count).sum();
        prop_assert!(kept.requests.len() as u64 + dropped_count <= 3);
        prop_assert!(kept.dropped.len() <= 3);
        prop_assert_eq!(record.requests_count, kept.requests.len() as u64);
        prop_assert_eq!(record.dropped_count, dropped_count);
        // Before the run and after it on two vCPUs, and what went out meanwhile.
        prop_assert!(kept.exchanges.len() <= 4 * CALIBRATION_EXCHANGES as usize + 64);
        prop_assert!(record.notices.len() <= frames.len());
        let texts = record.notices.iter().map(|notice| &notice.text);
        for text in texts.chain(record.ready.iter().map(|ready| &ready.target)) {
            prop_assert!(!text.contains(char::is_control), "{:?}", text);
        }
    }
}

#[test]
fn a_guest_that_hangs_is_given_up() {
    let silence_max = Duration::from_millis(300);
    let (_, result) = converse_by(
        SessionPlan { silence_max, ..plan() },
        &mut Kept::default(),
        |mut guest| {
            guest.say(&hello());
            guest.hear();
            guest.say(&ready());
            assert_eq!(guest.hear(), Some(HostFrame::Start));
            // Takes pings, answers none.
            std::io::copy(&mut guest.stream, &mut std::io::sink()).unwrap();
        },
        direct,
    );
    assert!(matches!(result, Err(SessionError::Silent { .. })), "{result:?}");
}
