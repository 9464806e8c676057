//! Laws of the stream: every frame returns as it was however the stream is cut, and hostile bytes
//! cost a bounded amount of memory and an error.
#![expect(unsafe_code, reason = "a counting global allocator can only be an unsafe impl")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use vslice_wire::{
    BLOCK_REQUESTS_MAX, BlockOperation, ClockKind, CompletionVcpu, DecodeError, Deframer, Done,
    DoneReason, Dropped, FRAME_BYTES_MAX, Frame, GuestDisk, GuestFrame, GuestTicks, Hello,
    HogCount, HostFrame, Notice, Observed, ObservedBlock, ObservedCost, ObservedDevice,
    ObservedEnd, ObservedFlags, ObservedHidden, ObservedIssue, ObservedOthers, ObservedRequest,
    ObservedTask, ObservedUnderWay, Ping, Pong, Ready, Request, Severity,
};

/// Counts what this thread holds and the most that it ever held.
struct Counting;

thread_local! {
    static HELD_BYTES: Cell<isize> = const { Cell::new(0) };
    static PEAK_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count(change_bytes: isize) {
    let held_bytes = HELD_BYTES.get() + change_bytes;
    HELD_BYTES.set(held_bytes);
    PEAK_BYTES.set(PEAK_BYTES.get().max(held_bytes));
}

// SAFETY: every call is passed on to `System` with the same arguments, and the counters are
// constant-initialised thread locals without a destructor, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promise about `layout` is the one that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: `pointer` came from `System` with this `layout`, by `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that `work` held above what was held before it.
fn peak_bytes(work: impl FnOnce()) -> isize {
    let before_bytes = HELD_BYTES.get();
    PEAK_BYTES.set(before_bytes);
    work();
    PEAK_BYTES.get() - before_bytes
}

fn ticks() -> impl Strategy<Value = GuestTicks> {
    any::<u64>().prop_map(GuestTicks)
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..60).prop_map(String::from_iter)
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (any::<u64>(), ticks(), ticks(), any::<u16>(), any::<u16>(), any::<i32>());
    prop::collection::vec(
        request.prop_map(
            |(index, submitted, completed, vcpu_submitted, vcpu_completed, result)| Request {
                index,
                submitted,
                completed,
                vcpu_submitted,
                vcpu_completed,
                result,
            },
        ),
        0..20,
    )
}

fn operation() -> impl Strategy<Value = BlockOperation> {
    prop::sample::select(&BlockOperation::ALL[..])
}

fn observed_requests() -> impl Strategy<Value = Observed> {
    let what = (any::<u16>(), operation(), any::<u16>(), any::<u64>(), any::<u32>());
    let vcpus = (any::<u16>(), any::<u16>(), any::<u16>());
    let request = (what, (ticks(), ticks(), ticks()), vcpus, any::<u32>(), any::<i32>()).prop_map(
        |(what, (queued, issued, completed), vcpus, task, result)| {
            let (device, operation, flags, sector, bytes) = what;
            let (vcpu_queued, vcpu_issued, vcpu_completed) = vcpus;
            let flags = ObservedFlags(flags);
            ObservedRequest {
                device,
                operation,
                flags,
                sector,
                bytes,
                queued,
                issued,
                completed,
                vcpu_queued,
                vcpu_issued,
                vcpu_completed,
                task,
                result,
            }
        },
    );
    (ticks(), prop::collection::vec(request, 0..20))
        .prop_map(|(settled, requests)| Observed::Requests(ObservedBlock { settled, requests }))
}

fn observed_end() -> impl Strategy<Value = Observed> {
    let issue = prop_oneof![
        Just(ObservedIssue::NotYet),
        ticks().prop_map(ObservedIssue::At),
        Just(ObservedIssue::Unknown),
    ];
    let what = (any::<u16>(), operation(), any::<bool>(), any::<u64>());
    let oldest = (any::<u64>(), any::<u32>(), any::<u32>(), ticks(), issue);
    let row = (what, oldest).prop_map(
        |((device, operation, is_sync, count), (sector, bytes, task, queued, issue))| {
            ObservedUnderWay {
                device,
                operation,
                is_sync,
                count,
                sector,
                bytes,
                task,
                queued,
                issue,
            }
        },
    );
    let counts = (any::<u64>(), any::<u64>(), any::<u64>());
    let hidden = (any::<[u64; 4]>(), any::<bool>()).prop_map(
        |([queued_count, issued_count, completed_count, others_count], is_exact)| ObservedHidden {
            queued_count,
            issued_count,
            completed_count,
            others_count,
            is_exact,
        },
    );
    (ticks(), counts, hidden, prop::collection::vec(row, 0..5)).prop_map(
        |(at, (earlier_count, passthrough_count, late_count), hidden, under_way)| {
            Observed::End(ObservedEnd {
                at,
                earlier_count,
                passthrough_count,
                late_count,
                hidden,
                under_way,
            })
        },
    )
}

fn observed() -> impl Strategy<Value = Observed> {
    let queues = (any::<u16>(), prop::sample::select(CompletionVcpu::ALL.to_vec()));
    let place = (any::<u16>(), any::<u32>(), any::<u32>(), any::<u64>(), queues);
    let device = (place, text(), text(), text(), text()).prop_map(
        |(
            (number, major, minor, size_bytes, (hardware_queues, completion_vcpu)),
            name,
            serial,
            address,
            io_scheduler,
        )| {
            ObservedDevice {
                number,
                name,
                major,
                minor,
                size_bytes,
                serial,
                address,
                io_scheduler,
                hardware_queues,
                completion_vcpu,
            }
        },
    );
    let task = (any::<u32>(), any::<u32>(), text(), text())
        .prop_map(|(number, pid, name, title)| ObservedTask { number, pid, name, title });
    let counts = (any::<u64>(), any::<u64>(), any::<u64>());
    let others = (any::<u16>(), operation(), any::<bool>(), counts).prop_map(
        |(device, operation, is_sync, (count, bytes, total_ticks))| ObservedOthers {
            device,
            operation,
            is_sync,
            count,
            bytes,
            total_ticks,
        },
    );
    let lost = (any::<u64>(), ticks(), ticks()).prop_map(|(count, first, last)| Dropped {
        count,
        first,
        last,
    });
    let cost = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
        |(cpu_ns, events_count, lost_count, clock_read_ns)| ObservedCost {
            cpu_ns,
            events_count,
            lost_count,
            clock_read_ns,
        },
    );
    prop_oneof![
        prop::collection::vec(device, 0..5).prop_map(Observed::Devices),
        prop::collection::vec(task, 0..5).prop_map(Observed::Tasks),
        observed_requests(),
        prop::collection::vec(others, 0..5).prop_map(Observed::Others),
        lost.prop_map(Observed::Lost),
        cost.prop_map(Observed::Cost),
        observed_end(),
    ]
}

fn guest_frame() -> impl Strategy<Value = GuestFrame> {
    let hello = (any::<u16>(), text(), text(), any::<u16>(), any::<bool>()).prop_map(
        |(protocol_version, agent_version, kernel_release, vcpu_count, tsc_invariant)| Hello {
            protocol_version,
            agent_version,
            kernel_release,
            vcpu_count,
            tsc_invariant,
        },
    );
    let clock = prop_oneof![Just(ClockKind::Tsc), Just(ClockKind::MonotonicRaw)];
    let disk = (any::<u64>(), any::<Option<u64>>(), text()).prop_map(
        |(size_bytes, target_offset_bytes, io_scheduler)| GuestDisk {
            size_bytes,
            target_offset_bytes,
            io_scheduler,
        },
    );
    let ready = (clock, text(), any::<u64>(), text(), prop::option::of(disk)).prop_map(
        |(clock, target, target_bytes, clock_source, disk)| Ready {
            clock,
            target,
            target_bytes,
            clock_source,
            disk,
        },
    );
    let pong = (any::<u64>(), any::<u16>(), ticks(), ticks())
        .prop_map(|(id, vcpu, received, sent)| Pong { id, vcpu, received, sent });
    let dropped = (any::<u64>(), ticks(), ticks()).prop_map(|(count, first, last)| Dropped {
        count,
        first,
        last,
    });
    let hog = (any::<u16>(), any::<u64>()).prop_map(|(vcpu, count)| HogCount { vcpu, count });
    let severity = prop_oneof![Just(Severity::Warning), Just(Severity::Error)];
    let reason = prop_oneof![
        Just(DoneReason::Completed),
        Just(DoneReason::Stopped),
        Just(DoneReason::Failed)
    ];
    let done = (reason, any::<u64>(), any::<u64>()).prop_map(|(reason, requests, dropped)| Done {
        reason,
        requests,
        dropped,
    });
    prop_oneof![
        hello.prop_map(GuestFrame::Hello),
        ready.prop_map(GuestFrame::Ready),
        pong.prop_map(GuestFrame::Pong),
        requests().prop_map(GuestFrame::Requests),
        dropped.prop_map(GuestFrame::Dropped),
        prop::collection::vec(hog, 0..20).prop_map(GuestFrame::Hogs),
        (severity, text())
            .prop_map(|(severity, text)| GuestFrame::Notice(Notice { severity, text })),
        done.prop_map(GuestFrame::Done),
        observed().prop_map(GuestFrame::Observed),
    ]
}

fn host_frame() -> impl Strategy<Value = HostFrame> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(HostFrame::Plan),
        (any::<u64>(), any::<Option<u16>>())
            .prop_map(|(id, vcpu)| HostFrame::Ping(Ping { id, vcpu })),
        Just(HostFrame::Start),
        Just(HostFrame::Stop),
        Just(HostFrame::Bye),
    ]
}

fn stream_of<F: Frame>(frames: &[F]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        frame.encode(&mut stream).expect("within the bounds");
    }
    stream
}

/// All frames of the stream when it arrives in pieces of these sizes, taken in turn.
fn frames_of<F: Frame>(
    deframer: &mut Deframer<F>,
    stream: &[u8],
    piece_bytes: &[usize],
) -> Result<Vec<F>, DecodeError> {
    let mut frames = Vec::new();
    let mut rest = stream;
    for &bytes in piece_bytes.iter().cycle() {
        let (mut piece, after) = rest.split_at(bytes.min(rest.len()));
        while let Some(frame) = deframer.next_frame(&mut piece)? {
            frames.push(frame);
        }
        assert!(piece.is_empty(), "`None` means that the piece is used up");
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    Ok(frames)
}

/// One frame's buffer (a vector may hold twice its length, and once more while it grows) and one
/// frame's values.
const HELD_BYTES_MAX: isize = 4 * FRAME_BYTES_MAX.cast_signed();

/// Decodes what a hostile peer sends and drops the frames, as one who only counts them would.
fn survive<F: Frame>(stream: &[u8]) -> Result<(), TestCaseError> {
    let mut failed = false;
    let peak_bytes = peak_bytes(|| {
        let mut deframer = Deframer::<F>::new();
        let mut input = stream;
        loop {
            match deframer.next_frame(&mut input) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => {
                    failed = true;
                    break;
                }
            }
        }
    });
    prop_assert!(failed || peak_bytes > 0 || stream.is_empty());
    prop_assert!(peak_bytes <= HELD_BYTES_MAX, "held {} bytes", peak_bytes);
    Ok(())
}

proptest! {
    #[test]
    fn guest_frames_return(
        frames in prop::collection::vec(guest_frame(), 0..6),
        pieces in prop::collection::vec(1..40_usize, 1..6),
    ) {
        let mut deframer = Deframer::new();
        prop_assert_eq!(frames_of(&mut deframer, &stream_of(&frames), &pieces), Ok(frames));
        prop_assert_eq!(deframer.partial_bytes(), 0);
    }

    #[test]
    fn host_frames_return(
        frames in prop::collection::vec(host_frame(), 0..6),
        pieces in prop::collection::vec(1..40_usize, 1..6),
    ) {
        let mut deframer = Deframer::new();
        prop_assert_eq!(frames_of(&mut deframer, &stream_of(&frames), &pieces), Ok(frames));
    }

    #[test]
    fn random_bytes_are_survived(stream in prop::collection::vec(any::<u8>(), 0..400)) {
        survive::<GuestFrame>(&stream)?;
        survive::<HostFrame>(&stream)?;
    }

    /// Random payloads behind a right header come much further than random streams.
    #[test]
    fn random_payloads_are_survived(
        kind in prop_oneof![1..0x0c_u8, 0x81..0x86_u8],
        payload in prop::collection::vec(prop_oneof![0..3_u8, any::<u8>()], 0..400),
    ) {
        let mut stream = u32::try_from(payload.len() + 1).unwrap().to_le_bytes().to_vec();
        stream.push(kind);
        stream.extend_from_slice(&payload);
        survive::<GuestFrame>(&stream)?;
        survive::<HostFrame>(&stream)?;
    }

    /// Good frames with a few bytes changed come further still.
    #[test]
    fn damaged_frames_are_survived(
        frames in prop::collection::vec(guest_frame(), 1..4),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut stream = stream_of(&frames);
        for (place, byte) in damages {
            let place = place.index(stream.len());
            stream[place] = byte;
        }
        survive::<GuestFrame>(&stream)?;
    }

    /// No frame begins another: a frame that is cut short is never taken for a whole one.
    #[test]
    fn a_cut_payload_is_refused(frame in guest_frame(), cut in any::<prop::sample::Index>()) {
        let stream = stream_of(&[frame]);
        let (kind, payload) = (stream[4], &stream[5..]);
        prop_assume!(!payload.is_empty());
        let cut_payload = &payload[..cut.index(payload.len())];
        prop_assert!(GuestFrame::decode_body(kind, cut_payload).is_err());
    }
}

#[test]
fn a_few_bytes_do_not_make_a_large_block() {
    let bytes = [4, 0x80, 0x08, 0, 0, 0x80, 0x08, 0, 0x80, 0x08, 0, 0x80, 0x08, 0, 0x80, 0x08];
    assert_eq!(usize::from(bytes[2]) << 7, BLOCK_REQUESTS_MAX);
    let held_bytes = peak_bytes(|| {
        let truncated = DecodeError::Truncated { needed_bytes: 1, left_bytes: 0 };
        assert_eq!(GuestFrame::decode_body(bytes[0], &bytes[1..]), Err(truncated));
    });
    assert!(held_bytes <= HELD_BYTES_MAX, "held {held_bytes} bytes");
}

#[test]
fn the_largest_frame_is_held_and_no_larger_one() {
    for (length_bytes, expected) in [
        (0, Err(0)),
        (1, Ok(())),
        (FRAME_BYTES_MAX, Ok(())),
        (FRAME_BYTES_MAX + 1, Err(FRAME_BYTES_MAX + 1)),
        (u32::MAX as usize, Err(u32::MAX as usize)),
    ] {
        let header = u32::try_from(length_bytes).unwrap().to_le_bytes();
        let mut deframer = Deframer::<HostFrame>::new();
        let expected = expected.map(|()| None).map_err(|length_bytes| DecodeError::FrameLength {
            length_bytes,
            max_bytes: FRAME_BYTES_MAX,
        });
        assert_eq!(deframer.next_frame(&mut &header[..]), expected);
        if expected.is_ok() {
            assert_eq!(deframer.partial_bytes(), 4, "what has arrived, not what is announced");
        }
    }
}

#[test]
fn after_an_error_nothing_is_believed() {
    let mut stream = vec![1, 0, 0, 0, 0x01];
    HostFrame::Start.encode(&mut stream).expect("within the bounds");
    let mut deframer = Deframer::<HostFrame>::new();
    let mut input = &stream[..];
    let unknown = Err(DecodeError::UnknownKind { kind: 0x01 });
    assert_eq!(deframer.next_frame(&mut input), unknown);
    assert_eq!(deframer.next_frame(&mut input), unknown);
    assert_eq!(deframer.partial_bytes(), 0);
}
