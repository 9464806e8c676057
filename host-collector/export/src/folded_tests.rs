use super::*;
use proptest::prelude::*;
use std::sync::Arc;
use vslice_core::timeline::{Reason, Sleep};
use vslice_core::units::{HostNs, PcpuId};
use vslice_report::analyse::drawn::{manifest, names, run_in, streams};
use vslice_report::analyse::{SummaryObserver, analyse_with};
use vslice_report::summary::Summary;
use vslice_trace::RunDir;
use vslice_trace::StackNames;
use vslice_trace::manifest::Manifest;

/// What a tool reads of a line, by flamegraph.pl's rule: frames with `;` between them, and the number behind the last
/// space. A tool drops or joins frames that are empty or have a space at an edge.
fn read(line: &str) -> (Vec<&str>, u64) {
    let (stack, count) = line.rsplit_once(' ').unwrap();
    let frames: Vec<&str> = stack.split(';').collect();
    let is_frame = |frame: &&str| !frame.is_empty() && frame.trim() == *frame;
    assert!(frames.iter().all(is_frame), "{line:?}");
    assert!(frames.len() >= 3 && count.bytes().all(|byte| byte.is_ascii_digit()), "{line:?}");
    (frames, count.parse().unwrap())
}

fn text(stacks: &OffCpuStacks) -> String {
    let mut bytes = Vec::new();
    stacks.write(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn analysed(run: &RunDir) -> (OffCpuStacks, Summary) {
    let (mut stacks, mut summary) = (OffCpuStacks::default(), SummaryObserver::default());
    analyse_with(run.path(), &mut [&mut stacks, &mut summary]).unwrap();
    (stacks, summary.into_summary().unwrap())
}

fn drawn(change: impl FnOnce(&mut Manifest)) -> (tempfile::TempDir, RunDir) {
    let scratch = tempfile::tempdir().unwrap();
    let mut manifest = manifest();
    change(&mut manifest);
    let run = run_in(&scratch.path().join("run"), &manifest);
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    (scratch, run)
}

/// That the lines of each vCPU and reason are what the summary says of it.
fn assert_adds_up(text: &str, summary: &Summary) {
    let mut sums: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for line in text.lines() {
        let (frames, off_ns) = read(line);
        if frames[1].starts_with("vCPU") {
            let [vm, vcpu, reason] = [0, 1, 2].map(|place| frames[place].to_owned());
            *sums.entry((vm, vcpu, reason)).or_default() += off_ns;
        }
    }
    let rows =
        summary.vcpus.iter().flat_map(|vcpu| vcpu.off_cpu.iter().map(move |row| (vcpu, row)));
    let rows = rows.filter(|(_, row)| row.total_ns > 0).map(|(vcpu, row)| {
        let reason = row.reason.label().to_owned();
        ((vcpu.vm.clone(), vcpu.vcpu.to_string(), reason), row.total_ns)
    });
    assert_eq!(sums, rows.collect());
}

#[test]
fn the_lines_of_the_drawn_run_say_who_ran_and_who_released_the_lock() {
    let (_scratch, run) = drawn(|_| {});
    let (stacks, summary) = analysed(&run);
    let text = text(&stacks);
    let vm1: Vec<&str> = text.lines().filter(|line| line.starts_with("vm1;vCPU1;")).collect();
    assert_eq!(
        vm1,
        [
            "vm1;vCPU1;BQL;do_futex;futex_wait_queue;released by: vm1 main loop 100000",
            "vm1;vCPU1;unknown;(no stack recorded);ran instead: vm2 vCPU1 500000",
            "vm1;vCPU1;wakeup delay;ran instead: vm2 vCPU1 50000",
        ]
    );
    assert_adds_up(&text, &summary);
}

#[test]
fn no_name_breaks_a_line() {
    let name = "a;b\n c 12 \u{202e}";
    let (_scratch, run) = drawn(|manifest| {
        manifest.vms[0].threads[0].role = vslice_trace::thread::ThreadRole::Iothread(name.into());
    });
    let frames = vec![" futex_wait_queue ".to_owned(), String::new(), name.to_owned()];
    run.write_stack_names(&[StackNames { id: 0, frames }]).unwrap();
    let text = text(&analysed(&run).0);
    let lock = text.lines().find(|line| line.starts_with("vm1;vCPU1;BQL;")).unwrap();
    let (frames, off_ns) = read(lock);
    assert_eq!(frames[3..6], ["a,b? c 12 ?", "(no name)", "futex_wait_queue"]);
    assert_eq!((frames[6], off_ns), ("released by: vm1 iothread a,b? c 12 ?", 100_000));
    text.lines().for_each(|line| _ = read(line));
}

/// One of the few threads, states and antagonists that there are.
fn span() -> impl Strategy<Value = Span> {
    let state = prop_oneof![
        (0..3_u32).prop_map(|stack| ThreadState::Blocked(Sleep {
            stack: (stack > 0).then_some(StackId(stack)),
            waker: (stack > 1).then_some(Tid(stack)),
            ..Sleep::new(Reason::Bql)
        })),
        (0..9_u32).prop_map(|stack| ThreadState::PreemptWait {
            pcpu: PcpuId(1),
            reason: if stack > 7 { Reason::Throttle } else { Reason::Timeslice },
            stack: Some(StackId(stack)),
            lock: None,
        }),
        Just(ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None }),
        Just(ThreadState::Unknown { cause: UnknownCause::Lost }),
    ];
    let ran = prop::collection::vec((0..6_u32, 0..50_u64), 0..4);
    (0..4_u32, state, 0..100_u64, ran).prop_map(|(tid, state, length_ns, ran)| {
        let antagonists = ran.into_iter().map(|(who, ran_ns)| {
            let name = format!("thread{who}");
            let who = match who {
                0 => Who::Idle,
                1 => Who::Others,
                _ => Who::Thread(Arc::new(Task { name, ..Task::unknown(Tid(who)) })),
            };
            Antagonist::new(who, ran_ns)
        });
        let antagonists = antagonists.collect();
        let (start, end) = (HostNs(10), HostNs(10 + length_ns));
        Span { tid: Tid(tid), start, end, state, antagonists }
    })
}

/// Listens to four threads, of which two have one role.
fn listener(room: Room) -> OffCpuStacks {
    let mut stacks = OffCpuStacks::with_room(room);
    stacks.window.end = HostNs(u64::MAX);
    stacks.heads = ["vm1;vCPU0", "vm1;vCPU1", "vm1;worker"].map(str::to_owned).into();
    stacks.places = [(0, 0), (1, 1), (2, 2), (3, 2)].map(|(tid, place)| (Tid(tid), place)).into();
    stacks
}

fn by_thread(rows: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (stack, off_ns) in rows {
        let head: Vec<&str> = stack.split(';').take(2).collect();
        *sums.entry(head.join(";")).or_default() += off_ns;
    }
    sums
}

proptest! {
    /// Whatever has no room, each thread's lines add up to its time off its pCPU, and there are not more of them.
    #[test]
    fn memory_is_bounded_and_nothing_is_lost(
        spans in prop::collection::vec(span(), 0..200), rows in 0..20_usize, names in 0..4_usize,
    ) {
        let mut stacks = listener(Room { rows, names });
        let mut off_ns: BTreeMap<String, u64> = BTreeMap::new();
        for span in spans.iter().filter(|span| span.length_ns() > 0) {
            let head = &stacks.heads[stacks.places[&span.tid] as usize];
            *off_ns.entry(head.clone()).or_default() += span.length_ns();
            stacks.span(span);
        }
        // Of each thread and reason one line is for what has no room.
        let limit = rows + stacks.heads.len() * OffReason::all().count();
        prop_assert!(stacks.rows.len() <= limit && stacks.names.texts.len() <= names);
        stacks.name_wakers(&Tasks::default());
        let text = text(&stacks);
        let lines = text.lines().map(|line| {
            let (frames, off_ns) = read(line);
            (frames.join(";"), off_ns)
        });
        prop_assert_eq!(by_thread(lines), off_ns);
    }

    /// However few rows are asked for, they add up to the same.
    #[test]
    fn rows_keep_to_their_number_and_bytes(
        spans in prop::collection::vec(span(), 1..100), count in 1..30_usize, bytes in 20..2000_usize,
    ) {
        let mut stacks = listener(ROOM);
        spans.iter().for_each(|span| stacks.span(span));
        let all: u64 = stacks.rows.values().sum();
        let rows = stacks.rows(count, bytes);
        let told: u64 = rows.iter().map(|(_, off_ns)| off_ns).sum();
        let told_bytes: usize = rows.iter().map(|(stack, _)| stack.len()).sum();
        prop_assert_eq!(told, all);
        prop_assert!(rows.len() <= count && told_bytes <= bytes, "{rows:?}");
    }
}

#[test]
fn the_longest_stacks_are_told_and_the_rest_of_each_thread_is_one() {
    let mut stacks = listener(ROOM);
    for (tid, stack, length_ns) in [(0, 1, 5), (0, 2, 50), (1, 1, 3), (1, 2, 4), (2, 1, 100)] {
        let (start, end) = (HostNs(10), HostNs(10 + length_ns));
        let sleep = Sleep { stack: Some(StackId(stack)), ..Sleep::new(Reason::Halt) };
        let state = ThreadState::Blocked(sleep);
        stacks.span(&Span { tid: Tid(tid), start, end, state, antagonists: Vec::new() });
    }
    let told = |count| {
        let rows = stacks.rows(count, 1 << 20);
        rows.into_iter().map(|(stack, ns)| format!("{stack} {ns}")).collect::<Vec<_>>()
    };
    let worker = "vm1;worker;halt;(stack 1 has no symbols) 100";
    let vcpu0 = "vm1;vCPU0;halt;(stack 2 has no symbols) 50";
    let rest = ["vm1;vCPU0;(further stacks) 5", "vm1;vCPU1;(further stacks) 7"];
    assert_eq!(told(5), [worker, vcpu0, rest[0], rest[1]]);
    assert_eq!(told(1), ["(further stacks) 162"]);
    assert_eq!(told(8).len(), 5, "there is room for all");
}

#[test]
fn threads_of_one_name_and_group_have_one_name() {
    let task = |name: &str, kind| Task { kind, name: name.to_owned(), ..Task::unknown(Tid(7)) };
    let mut stacks = listener(ROOM);
    let who = Who::Thread(Arc::new(task("sh", ThreadKind::Host)));
    let ran = Antagonist { who, ran_ns: 9, covers: Covers::Group };
    let state = ThreadState::WakeupDelay { pcpu: PcpuId(1), raced: None };
    let (start, end) = (HostNs(0), HostNs(10));
    stacks.span(&Span { tid: Tid(0), start, end, state, antagonists: vec![ran] });
    let lines = [
        "vm1;vCPU0;wakeup delay;ran instead: sh and others of its group 9\n",
        "vm1;vCPU0;wakeup delay;who ran instead is not recorded 1\n",
    ];
    assert_eq!(text(&stacks), lines.concat());
}
