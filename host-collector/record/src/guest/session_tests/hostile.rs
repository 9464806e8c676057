//! A guest that says too much, what it may not say, or nothing.

use super::*;

/// What a session makes of `frames` after a start as it should be.
pub(super) fn after_the_start(frames: &[GuestFrame]) -> (Kept, Conversation) {
    let mut kept = Kept::default();
    let conversation = converse(&mut kept, |guest| guest.start_and_say(frames), direct);
    (kept, conversation)
}

impl FakeGuest {
    pub(super) fn start_and_say(mut self, frames: &[GuestFrame]) {
        self.say(&hello());
        self.hear();
        self.say(&ready());
        self.hear();
        self.say_all(frames);
    }

    /// Says everything, whether or not somebody still listens, and goes away.
    pub(super) fn say_all(mut self, frames: &[GuestFrame]) {
        let mut bytes = Vec::new();
        for frame in frames {
            frame.encode(&mut bytes).unwrap();
        }
        if self.stream.write_all(&bytes).is_ok() {
            // The collector's pings would turn the end of this stream into a reset, which may
            // overtake the frames.
            self.stream.shutdown(std::net::Shutdown::Write).unwrap();
            while self.stream.read(&mut [0; 64]).unwrap_or(0) > 0 {}
        }
    }
}

pub(super) fn dropped(count: u64) -> GuestFrame {
    GuestFrame::Dropped(Dropped { count, first: GuestTicks(1), last: GuestTicks(2) })
}

#[test]
fn dropped_requests_use_up_the_allowance_too() {
    let fits = [GuestFrame::Requests(vec![request(0)]), dropped(2)];
    let (kept, (record, _)) = after_the_start(&fits);
    assert_eq!((kept.requests.len(), kept.dropped.len()), (1, 1));
    assert_eq!((record.requests_count, record.dropped_count), (1, 2));
    for one_more in [dropped(1), dropped(u64::MAX), GuestFrame::Requests(vec![request(1)])] {
        let (kept, (_, result)) = after_the_start(&[fits.as_slice(), &[one_more]].concat());
        assert!(matches!(result, Err(SessionError::TooManyRequests { max: 3 })), "{result:?}");
        assert_eq!((kept.requests.len(), kept.dropped.len()), (1, 1));
    }
}

#[test]
fn what_tells_of_nothing_is_not_recorded_for_ever() {
    for nothing in [dropped(0), GuestFrame::Requests(Vec::new()), hog_gaps(0)] {
        let (kept, (_, result)) = after_the_start(&[nothing]);
        assert!(matches!(result, Err(SessionError::Empty { .. })), "{result:?}");
        assert!(kept.dropped.is_empty() && kept.hog_gaps.is_empty());
    }
}

/// KVM has just told it.
pub(super) fn host_time() -> GuestFrame {
    let realtime_ns = vslice_host::host_clock::host_clocks_now().realtime_ns;
    let (before, after) = (GuestTicks(3), GuestTicks(9));
    GuestFrame::HostTime(HostTime { vcpu: 1, before, realtime_ns, after })
}

#[test]
fn times_beyond_the_bound_are_passed_over() {
    let frames = vec![host_time(); HOST_TIMES_MAX + 2];
    let (_, (record, _)) = after_the_start(&frames);
    assert_eq!(record.host_times.len(), HOST_TIMES_MAX);
}

pub(super) fn hog_gaps(count: usize) -> GuestFrame {
    let gap = HogGap { start: GuestTicks(3), end: GuestTicks(9) };
    GuestFrame::HogGaps(HogGaps { vcpu: 1, gaps: vec![gap; count] })
}

#[test]
fn a_flood_of_gaps_is_passed_over() {
    let enough = usize::try_from(HOG_GAPS_KEPT_MAX).unwrap() / vslice_wire::HOG_GAPS_MAX + 3;
    let frames: Vec<GuestFrame> =
        (0..enough).map(|_| hog_gaps(vslice_wire::HOG_GAPS_MAX)).collect();
    let (kept, (record, _)) = after_the_start(&frames);
    assert_eq!(
        (kept.hog_gaps.len() as u64, record.hog_gaps_count),
        (HOG_GAPS_KEPT_MAX, HOG_GAPS_KEPT_MAX)
    );
}

#[test]
fn what_is_said_out_of_turn_ends_the_session() {
    let requests = || GuestFrame::Requests(vec![request(0)]);
    let notice = || GuestFrame::Notice(Notice::new(Severity::Warning, "hm"));
    let hogs = || GuestFrame::Hogs(Vec::new());
    for frames in
        [vec![ready()], vec![notice()], vec![requests()], vec![host_time()], vec![hello(), ready()]]
    {
        let (_, result) = converse(
            &mut Kept::default(),
            |guest| guest.say_all(&frames),
            |commands, progress| {
                direct(commands, progress);
            },
        );
        assert!(matches!(result, Err(SessionError::OutOfOrder { .. })), "{frames:?}: {result:?}");
    }
    let done = || done(DoneReason::Completed);
    for frames in [
        vec![hello()],
        vec![ready()],
        vec![done(), requests()],
        vec![done(), dropped(1)],
        vec![done(), hogs()],
        vec![done(), hog_gaps(1)],
        vec![done(), done()],
    ] {
        let (kept, (_, result)) = after_the_start(&frames);
        assert!(matches!(result, Err(SessionError::OutOfOrder { .. })), "{frames:?}: {result:?}");
        assert!(kept.requests.is_empty() && kept.dropped.is_empty());
    }
    // Between its plan and its start a guest may fail, but not be done.
    let guest = |mut guest: FakeGuest| {
        guest.say(&hello());
        guest.hear();
        guest.say_all(&[ready(), done()]);
    };
    let (_, result) = converse(&mut Kept::default(), guest, direct);
    assert!(matches!(result, Err(SessionError::OutOfOrder { .. })), "{result:?}");
}

#[test]
fn no_text_of_a_guest_is_kept_as_it_came() {
    let evil = || String::from("a\u{1b}[2J\u{9b}31m\u{202e}\nb");
    let (record, _) = converse(
        &mut Kept::default(),
        |mut guest| {
            let GuestFrame::Hello(mut hello) = hello() else { unreachable!() };
            (hello.agent_version, hello.kernel_release) = (evil(), evil());
            guest.say(&GuestFrame::Hello(hello));
            guest.hear();
            let disk = GuestDisk { size_bytes: 1, target_offset_bytes: None, io_scheduler: evil() };
            let ready = Ready {
                clock: ClockKind::Tsc,
                target: evil(),
                target_bytes: 1,
                clock_source: evil(),
                disk: Some(disk),
            };
            guest.say_all(&[
                GuestFrame::Ready(ready),
                GuestFrame::Notice(Notice::new(Severity::Warning, evil())),
            ]);
        },
        direct,
    );
    let (hello, ready) = (record.hello.unwrap(), record.ready.unwrap());
    let texts = [
        hello.agent_version,
        hello.kernel_release,
        ready.target,
        ready.clock_source,
        ready.disk.unwrap().io_scheduler,
        record.notices[0].text.clone(),
    ];
    assert_eq!(texts, ["a?[2J?31m??b"; 6]);
}
