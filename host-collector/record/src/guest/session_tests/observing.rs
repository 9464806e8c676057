//! Guests that observe, and some that say that they do.

use super::super::calibration::{
    CALIBRATION_EXCHANGES_MIN, CALIBRATION_TIME, CALIBRATION_TIME_OF_ALL, CALIBRATION_TURN,
    calibration_of,
};
use super::*;
use vslice_wire::{
    BlockOperation, CompletionVcpu, ObservedBlock, ObservedCost, ObservedDevice, ObservedFlags,
    ObservedRequest, ObservedTask,
};

fn observing() -> SessionPlan {
    SessionPlan { observes: true, stamping_vcpus: Vec::new(), requests_max: 0, ..plan() }
}

fn observed(observed: Observed) -> GuestFrame {
    GuestFrame::Observed(observed)
}

fn device(name: &str) -> Observed {
    Observed::Devices(vec![ObservedDevice {
        number: 0,
        name: name.to_owned(),
        major: 254,
        minor: 0,
        size_bytes: 1 << 30,
        serial: String::new(),
        address: String::new(),
        io_scheduler: String::new(),
        hardware_queues: 2,
        completion_vcpu: CompletionVcpu::Interrupted,
    }])
}

fn flush(queued: u64) -> ObservedRequest {
    ObservedRequest {
        device: 0,
        operation: BlockOperation::Flush,
        flags: ObservedFlags::SYNC,
        sector: 0,
        bytes: 0,
        queued: GuestTicks(queued),
        issued: GuestTicks(queued + 1),
        completed: GuestTicks(queued + 9),
        vcpu_queued: 0,
        vcpu_issued: 0,
        vcpu_completed: 1,
        task: 4,
        result: 0,
    }
}

fn block(settled: u64, requests: Vec<ObservedRequest>) -> Observed {
    Observed::Requests(ObservedBlock { settled: GuestTicks(settled), requests })
}

#[test]
fn what_a_guest_observes_is_kept_and_each_of_its_vcpus_is_calibrated() {
    let mut kept = Kept::default();
    let guest = |mut guest: FakeGuest| {
        guest.say(&hello());
        guest.hear();
        guest.say(&observed(device("vda")));
        guest.say(&ready());
        assert_eq!(guest.hear(), Some(HostFrame::Start));
        let (name, title) = ("postgres".to_owned(), "postgres: walwriter".to_owned());
        guest.say(&observed(Observed::Tasks(vec![ObservedTask {
            number: 4,
            pid: 9,
            name,
            title,
        }])));
        guest.say(&observed(block(50, vec![flush(10), flush(20)])));
        let lost = Dropped { count: 2, first: GuestTicks(60), last: GuestTicks(70) };
        guest.say(&observed(Observed::Lost(lost)));
        guest.say(&observed(Observed::Cost(ObservedCost { cpu_ns: 5, ..ObservedCost::default() })));
        guest.say(&done(DoneReason::Stopped));
        assert_eq!(guest.hear(), Some(HostFrame::Bye));
    };
    let (record, result) = converse_by(observing(), &mut kept, guest, direct);
    result.unwrap();
    let [flush1, flush2] = [flush(10), flush(20)].map(ObservedItem::Request);
    let lost = Dropped { count: 2, first: GuestTicks(60), last: GuestTicks(70) };
    let settled = ObservedItem::Settled(GuestTicks(50));
    // It did not say what was under way at its end.
    let open = Dropped { count: 0, first: GuestTicks(50), last: GuestTicks(u64::MAX) };
    let losses = [lost, open].map(ObservedItem::Lost);
    assert_eq!(kept.observed, [&[flush1, flush2, settled][..], &losses].concat());
    for vcpu in [VcpuId(0), VcpuId(1)] {
        let exchanges = kept.exchanges.iter().filter(|of| **of == vcpu).count();
        assert_eq!(exchanges, 2 * CALIBRATION_EXCHANGES as usize, "{vcpu}: before and after");
    }
    // The clock of neither is read long after the other's for the last time.
    let turn = CALIBRATION_TURN as usize;
    let turns = [[VcpuId(0)].repeat(turn), [VcpuId(1)].repeat(turn)].concat();
    assert!(kept.exchanges.chunks(2 * turn).all(|of_both| of_both == turns));
    let record = record.observation.record(0);
    assert_eq!((record.requests_count, record.lost_count), (2, 2));
    assert_eq!(record.tasks[0].title.as_deref(), Some("postgres: walwriter"));
    assert_eq!(record.cost.map(|cost| cost.cpu_ns), Some(5));
}

/// Whatever a guest that is given up has left out is stored.
#[test]
fn a_guest_that_dies_beyond_its_bound_leaves_a_loss() {
    let mut kept = Kept { observed_bytes: u64::MAX, ..Kept::default() };
    let guest = |mut guest: FakeGuest| {
        guest.say(&hello());
        guest.hear();
        guest.say(&ready());
        guest.hear();
        guest.say(&observed(block(50, vec![flush(10), flush(20)])));
    };
    let (record, result) = converse_by(observing(), &mut kept, guest, direct);
    assert!(
        matches!(result, Err(SessionError::Closed { .. } | SessionError::Connection(_))),
        "{result:?}"
    );
    let lost = Dropped { count: 2, first: GuestTicks(10), last: GuestTicks(29) };
    assert_eq!(kept.observed, [ObservedItem::Lost(lost)]);
    let notice = record.observation.notices().next().expect("a notice");
    assert!(notice.contains("counts as lost"), "{notice}");
}

#[test]
fn what_is_observed_comes_when_it_is_asked_for_and_not_else() {
    let refused = |plan: SessionPlan, early: Option<Observed>, late: Option<Observed>| {
        let guest = move |mut guest: FakeGuest| {
            guest.say(&hello());
            guest.hear();
            // Whoever is refused has nobody to go on talking to.
            if let Some(frame) = early {
                guest.say(&observed(frame));
                while guest.hear().is_some() {}
                return;
            }
            guest.say(&ready());
            guest.hear();
            late.into_iter().for_each(|frame| guest.say(&observed(frame)));
            while guest.hear().is_some() {}
        };
        let (record, result) = converse_by(plan, &mut Kept::default(), guest, direct);
        assert_eq!(record.observation.requests_count(), 0);
        let Err(SessionError::OutOfOrder { frame, .. }) = result else { panic!("{result:?}") };
        frame
    };
    assert_eq!(refused(plan(), None, Some(block(1, vec![flush(1)]))), "what it observed");
    assert_eq!(refused(plan(), Some(device("vda")), None), "its disks");
    assert_eq!(refused(observing(), Some(block(1, vec![])), None), "what it observed");
}

/// It says of itself how many vCPUs it has: the time is shared among so many, and ends.
#[test]
fn a_guest_of_many_vcpus_is_calibrated_in_a_bounded_time() {
    let mut kept = Kept::default();
    let guest = |mut guest: FakeGuest| {
        let GuestFrame::Hello(hello) = hello() else { panic!("hello") };
        guest.say(&GuestFrame::Hello(Hello { vcpu_count: u16::MAX, ..hello }));
        guest.hear();
        guest.say(&ready());
        guest.hear();
        guest.say(&done(DoneReason::Stopped));
        guest.hear();
    };
    let plan = SessionPlan { calibration_exchanges: 1, ..observing() };
    converse_by(plan, &mut kept, guest, direct).1.unwrap();
    let vcpus: std::collections::BTreeSet<VcpuId> = kept.exchanges.iter().copied().collect();
    assert_eq!(vcpus.len(), usize::from(STAMPING_VCPUS_MAX));
}

#[test]
fn what_a_guest_has_to_say_is_told_at_once() {
    let (told, was_told) = channel();
    let guest = move |mut guest: FakeGuest| {
        guest.say(&hello());
        guest.hear();
        let text = "requests\x1b[2J cannot be observed";
        guest.say(&GuestFrame::Notice(Notice::new(Severity::Warning, text)));
        guest.say(&ready());
        guest.hear();
        // It ends only once its notice has arrived.
        was_told.recv().unwrap();
        guest.say(&done(DoneReason::Stopped));
        guest.hear();
    };
    let director = move |commands: Sender<Command>, progress: Receiver<Progress>| {
        for news in progress {
            match news {
                Progress::Connected(_) => {}
                Progress::Noticed(text) => {
                    assert!(text.contains("cannot be observed") && !text.contains('\x1b'));
                    told.send(()).unwrap();
                }
                Progress::Ready(_) => commands.send(Command::Start).unwrap(),
                Progress::Done(_) => commands.send(Command::Close).unwrap(),
            }
        }
    };
    converse_by(observing(), &mut Kept::default(), guest, director).1.unwrap();
}

/// Whoever waits for the end of a recording waits for the last exchanges too.
#[test]
fn the_exchanges_of_many_vcpus_take_as_long_as_those_of_some() {
    const SLOW_ROUND_TRIP: Duration = Duration::from_millis(5);
    assert_eq!(calibration_of(1), (CALIBRATION_EXCHANGES_MIN, CALIBRATION_TIME));
    for vcpus_count in 1..=u32::from(STAMPING_VCPUS_MAX) {
        let (least, time) = calibration_of(vcpus_count);
        assert!(time <= CALIBRATION_TIME_OF_ALL, "{vcpus_count}");
        let longest = time.max(vcpus_count * least * SLOW_ROUND_TRIP);
        assert!(longest < CALIBRATION_TIMEOUT, "{vcpus_count}: {longest:?}");
    }
}

#[test]
fn vcpus_share_the_visits_until_these_come_as_often_as_pings() {
    let turn = |count| visit_turn(Duration::from_secs(1), count).as_millis();
    let turns = [0, 1, 4, 10, 64].map(turn);
    assert_eq!(turns, [1_000, 1_000, 250, 100, 100]);
    let often = Duration::from_millis(1);
    assert_eq!(visit_turn(often, 3), often);
}
