//! Runs that were cut off, or of which something is missing.

use super::*;

#[test]
fn a_census_that_cannot_be_read_costs_names_and_not_the_report() {
    let (_scratch, run) = run_dir(&manifest());
    streams(&run, &[0, 500, 1150], true);
    std::fs::write(run.path().join("threads.json"), "[{").unwrap();
    let too_large = std::fs::File::create(run.path().join("threads_end.json")).unwrap();
    too_large.set_len(vslice_trace::JSON_BYTES_MAX + 1).unwrap();
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.requests.count, 2);
    let said = notices(&summary);
    assert!(said.contains("threads.json cannot be read (EOF while parsing"), "{said}");
    assert!(said.contains("threads_end.json cannot be read (it is larger than 67108864"), "{said}");
}

#[test]
fn what_a_census_had_no_room_for_is_said() {
    let mut manifest = manifest();
    manifest.cost.threads_left_out_count = 12;
    manifest.cost.commands_left_out_count = 3;
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let said = notices(&analyse(run.path()).unwrap());
    assert!(said.contains("12 more threads than vslice keeps"), "{said}");
    assert!(said.contains("command lines of 3 processes"), "{said}");
}

/// What is lost beyond the window changes nothing in it, and what is lost on two pCPUs at once is one loss of
/// time.
#[test]
fn losses_take_the_time_of_the_window_that_they_cover() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let loss = |pcpu, from, until| {
        let kind = HostEventKind::Lost { until: host_at(until), count: 3 };
        let event = HostEvent { time: host_at(from), pcpu: PcpuId(pcpu), kind };
        stream(&run.events_path(PcpuId(pcpu)), vec![event], true);
    };
    // The window ends at 1100.
    loss(7, 900, 3_000_000);
    loss(8, 850, 950);
    loss(9, 1_150, 1_160);
    let lost = analyse(run.path()).unwrap().facts.lost;
    assert_eq!((lost.records, lost.intervals, lost.total_ns), (6, 2, 250_000));
}

#[test]
fn drops_of_the_guest_are_counted() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 1150], true);
    let vm1 = VmName::try_from("vm1").unwrap();
    std::fs::remove_file(run.requests_path(&vm1)).unwrap();
    let dropped = Dropped { count: 3, first: guest_at(50), last: guest_at(60) };
    stream(&run.requests_path(&vm1), vec![RequestItem::Dropped(dropped)], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.dropped), (0, 3));
}

#[test]
fn threads_that_were_not_watched_everywhere_are_said() {
    let mut manifest = manifest();
    manifest.cost.uncovered_threads_count = 3;
    let (_scratch, run) = run_dir(&manifest);
    let summary = analyse(run.path()).unwrap();
    assert!(notices(&summary).contains("3 of 7 threads of the VMs"), "{}", notices(&summary));
}

/// vm2's vCPU leaves at 20 and at 100 without having come on between.
#[test]
fn only_what_contradicts_itself_in_the_window_is_warned_of() {
    let warned = |window_start_us| {
        let mut manifest = manifest();
        let end_ns = Some(host_at(1100));
        manifest.window = Some(Window { start_ns: host_at(window_start_us), end_ns });
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 1150], true);
        std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
        let events = [20, 100].map(|us| switch(us, VM2_VCPU1, PrevState::Runnable, VM1_VCPU1));
        stream(&run.events_path(PcpuId(1)), events.into(), true);
        notices(&analyse(run.path()).unwrap()).contains("contradict the ones before them")
    };
    assert!(warned(100));
    assert!(!warned(101));
}

#[test]
fn a_killed_run_is_partial_and_its_sleeps_have_no_reason() {
    let (_scratch, run) = run_dir(&killed_manifest());
    streams(&run, &[0, 500, 1150], false);
    let summary = analyse(run.path()).unwrap();
    assert!(matches!(summary.facts.status, RunStatus::Partial { .. }));
    assert_eq!(summary.facts.measured_ns, 1_200_000, "up to the last event");
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 0));
    assert_eq!(summary.parts.all.get(Part::BqlWait), 0);
    let unknown_ns = summary.parts.all.get(Part::Unknown);
    assert!(unknown_ns.abs_diff(100_000) <= 4, "the sleep: {unknown_ns}");
    assert!(
        summary.facts.hogs.is_empty(),
        "nobody knows whether they counted: {:?}",
        summary.facts.hogs
    );
    assert!(!notices(&summary).contains("0 bytes"), "no block was cut: {}", notices(&summary));
}

/// Nothing is known of a pCPU after the end of its record, however long others' records are.
#[test]
fn what_comes_after_a_cut_is_unknown() {
    let (_scratch, run) = run_dir(&killed_manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], false);
    let path = run.events_path(PcpuId(1));
    std::fs::remove_file(&path).unwrap();
    let (preempted, runs) = (PrevState::RunnablePreempted, PrevState::Runnable);
    let events = vec![
        switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
        switch(100, VM1_VCPU1, preempted, VM2_VCPU1),
        switch(400, VM2_VCPU1, runs, VM1_VCPU1),
    ];
    stream(&path, events, false);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 2));
    assert_eq!(summary.facts.lost.records, 0, "the kernel has dropped none");
    assert!(notices(&summary).contains("pCPU1"), "{}", notices(&summary));
}

/// The host died when the run had just been closed: its manifest is on the disk, and its events are not.
#[test]
fn a_run_whose_files_are_empty_is_not_complete() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    for pcpu in [PcpuId(0), PcpuId(1)] {
        std::fs::write(run.events_path(pcpu), "").unwrap();
    }
    let summary = analyse(run.path()).unwrap();
    assert!(
        matches!(&summary.facts.status, RunStatus::Partial { reason } if reason.contains("cut off")),
        "{:?}",
        summary.facts.status
    );
    assert_eq!((summary.requests.count, summary.requests.unattributable), (2, 2));
    assert!(notices(&summary).contains("were cut off after 0.000 s"), "{}", notices(&summary));
    let page = crate::summary::render_full(&summary, crate::summary::Style::PLAIN);
    assert!(!page.contains("every scheduler event"), "{page}");
}

#[test]
fn a_run_that_ended_before_it_recorded_has_an_empty_report() {
    let why = String::from("vm1: the guest did not connect");
    let status = Status::Partial { why };
    let (_scratch, run) = run_dir(&Manifest { status, window: None, vms: vec![], ..manifest() });
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.facts.measured_ns), (0, 0));
    assert!(
        matches!(summary.facts.status, RunStatus::Partial { reason } if reason.contains("vm1"))
    );
}

#[test]
fn another_schema_is_refused() {
    let schema = String::from("vslice.run/0");
    let (_scratch, run) = run_dir(&Manifest { schema, ..manifest() });
    assert!(matches!(analyse(run.path()), Err(AnalyseError::Schema { .. })));
}
