//! The session against guests that are threads of this test: well-behaved, dying and hostile ones.

use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{channel, sync_channel};
use std::thread;
use vslice_wire::{ClockKind, GuestTicks, Pong, Severity};

/// A sink that keeps everything, or fails at the first request as a full disk would.
#[derive(Debug, Default)]
struct Kept {
    requests: Vec<Request>,
    dropped: Vec<Dropped>,
    exchanges: Vec<VcpuId>,
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
        let mut byte = [0; 1];
        loop {
            if self.stream.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            let Some(frame) = self.deframer.next_frame(&mut &byte[..]).unwrap() else { continue };
            let HostFrame::Ping(ping) = frame else { return Some(frame) };
            self.ticks += 10;
            let now = GuestTicks(self.ticks);
            let vcpu = ping.vcpu.unwrap_or(0);
            self.say(&GuestFrame::Pong(Pong { id: ping.id, vcpu, received: now, sent: now }));
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
    GuestFrame::Ready(Ready { clock: ClockKind::Tsc, target, target_bytes: 1 << 26 })
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

/// Runs a session over a socket pair against `guest`, with `director` as the run.
fn converse(
    kept: &mut Kept,
    guest: impl FnOnce(FakeGuest) + Send,
    director: impl FnOnce(Sender<Command>, Receiver<Progress>) + Send,
) -> Conversation {
    converse_within(Duration::from_secs(30), kept, guest, director)
}

/// As [`converse`]; a guest that runs may be silent for `silence_max`.
fn converse_within(
    silence_max: Duration,
    kept: &mut Kept,
    guest: impl FnOnce(FakeGuest) + Send,
    director: impl FnOnce(Sender<Command>, Receiver<Progress>) + Send,
) -> Conversation {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fake = FakeGuest { stream: theirs, deframer: Deframer::new(), ticks: 0 };
    let (command_sender, commands) = channel();
    let (progress, progress_receiver) = channel();
    let plan = SessionPlan {
        plan_json: b"{}".to_vec(),
        requests_max: 3,
        stamping_vcpus: vec![VcpuId(0), VcpuId(1)],
        silence_max,
    };
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
            Progress::Connected(_) => continue,
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
    assert_eq!(record.done.unwrap().reason, DoneReason::Completed);
    assert_eq!(record.requests_count, 2);
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
                    Progress::Connected(_) => {}
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
    assert_eq!(record.requests_count, 4);
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
    assert_eq!(text, "no disk[2J in this guest", "control characters are removed");
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
fn a_guest_that_hangs_is_given_up() {
    let (_, result) = converse_within(
        Duration::from_millis(300),
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
