//! The clocks of a run, and what speaks against them.

use super::*;

/// The host's TSC counts nanoseconds as well. vm1's vCPU runs from 20 us to 5 ms.
#[test]
fn what_kvm_says_of_a_tsc_makes_the_clock_exact_or_contradicts_it() {
    let summary = |offsets: [i64; 2]| {
        let mut manifest = manifest();
        manifest.window = Some(Window { start_ns: host_at(0), end_ns: Some(host_at(6000)) });
        let sample = |us| TscSample {
            before: host_at(us),
            tsc: host_at(us).0 + 20,
            after: HostNs(host_at(us).0 + 40),
        };
        manifest.host_tsc = [10, 3100, 3300, 3500, 4000].map(sample).into();
        let reading = |(from, until, offset_ticks): (u64, u64, i64)| TscReading {
            from: host_at(from),
            until: host_at(until + 1),
            relation: TscRelation { offset_ticks, scaling: None },
        };
        let readings = [(10, 3300, offsets[0]), (4000, 4000, offsets[1])].map(reading).into();
        let vcpus = vec![VcpuTsc { vcpu: VcpuId(1), readings }];
        manifest.vms[0].tsc = TscRecord { vcpus, missing: None };
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 6000], true);
        std::fs::remove_file(run.events_path(PcpuId(1))).unwrap();
        let preempted = PrevState::RunnablePreempted;
        let events = vec![
            switch(20, VM2_VCPU1, preempted, VM1_VCPU1),
            switch(5000, VM1_VCPU1, preempted, VM2_VCPU1),
        ];
        stream(&run.events_path(PcpuId(1)), events, true);
        analyse(run.path()).unwrap()
    };
    let truth = -OFFSET_NS.cast_signed();
    let exact = summary([truth, truth]);
    assert_eq!(exact.clock.method, ClockMethod::TscOffset);
    // At 10 us the vCPU was not running. At 3.5 ms KVM said one thing before and another after.
    assert_eq!(
        exact.clock.vcpus[0].kvm_check,
        KvmCheck { readings: 3, violations: 0, worst_ns: 0 }
    );
    let off = summary([truth, truth + 5_000]);
    assert_eq!(off.clock.method, ClockMethod::Exchange);
    let check = off.clock.vcpus[0].kvm_check;
    assert_eq!((check.readings, check.violations), (3, 1));
    assert!(check.worst_ns.abs_diff(5_000) < 50, "{check:?}");
    assert!(notices(&off).contains("contradict the clock round trips"), "{}", notices(&off));
}

#[test]
fn what_kvm_told_the_guest_of_the_hosts_clock_is_held_against_the_map() {
    let summary = |late_ns: u64| {
        let mut manifest = manifest();
        let time = |us: u64, late_ns: u64| HostTimeSample {
            vcpu: VcpuId(1),
            asked_ticks: guest_at(us).0,
            answered_ticks: guest_at(us + 2).0,
            earliest: HostNs(host_at(us + 1).0 + late_ns),
            latest: HostNs(host_at(us + 1).0 + late_ns),
        };
        let other = HostTimeSample { vcpu: VcpuId(0), ..time(100, 900_000) };
        let times = vec![time(100, 0), other, time(300, late_ns)];
        manifest.vms[0].guest.as_mut().unwrap().host_times = times;
        let (_scratch, run) = run_dir(&manifest);
        names(&run);
        streams(&run, &[0, 500], true);
        analyse(run.path()).unwrap()
    };
    let check = summary(0).clock.vcpus[0].ptp_check;
    assert_eq!(check, KvmCheck { readings: 2, violations: 0, worst_ns: 0 });
    let late = summary(80_000);
    let check = late.clock.vcpus[0].ptp_check;
    assert_eq!((check.readings, check.violations), (2, 1));
    assert!((60_000..80_000).contains(&check.worst_ns), "{check:?}");
    assert!(notices(&late).contains("as guests read it through KVM"), "{}", notices(&late));
}

/// vm1's vCPU is off its pCPU from 100 to 400 and from 600 to 750 us, and from 1000 to 1200, where the
/// record ends.
#[test]
fn a_hog_that_ran_while_its_vcpu_was_off_its_pcpu_violates_the_clock() {
    let summary = |gaps_us: &[(u64, u64)]| {
        let (_scratch, run) = run_dir(&manifest());
        names(&run);
        streams(&run, &[0, 500, 1150], true);
        let gap = |(start, end): &(u64, u64)| HogGapItem {
            vcpu: VcpuId(1),
            start: guest_at(*start),
            end: guest_at(*end),
        };
        let path = run.hog_gaps_path(&VmName::try_from("vm1").unwrap());
        stream(&path, gaps_us.iter().map(gap).collect(), true);
        analyse(run.path()).unwrap()
    };
    let sound = summary(&[(30, 90), (99, 401), (599, 752), (999, 1201), (1400, 1500)]);
    let told = |absences, violations| HogCheck { absences, violations, worst_ns: 0 };
    assert_eq!(sound.clock.vcpus[0].hog_check, told(3, 0));
    assert_eq!(sound.clock.vcpus[0].stays, 2, "from 400 to 600 us, and from 750 to 1000");
    let unsound = summary(&[(30, 90), (99, 401), (640, 760), (999, 1201), (1400, 1500)]);
    let check = unsound.clock.vcpus[0].hog_check;
    assert_eq!((check.absences, check.violations), (3, 1));
    assert!((38_000..40_000).contains(&check.worst_ns), "{check:?}");
    assert_eq!(unsound.clock.vcpus[0].stays, 1, "nothing rests on the gap that does not fit");
    assert!(notices(&unsound).contains("hogs ran 1 time"), "{}", notices(&unsound));
    assert_eq!(summary(&[]).clock.vcpus[0].hog_check, told(0, 0));
}

#[test]
fn requests_without_a_clock_are_left_out_and_that_is_said() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[500], true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!((summary.requests.count, summary.requests.unattributable_by.no_clock), (2, 2));
    assert_eq!((summary.classes.all.count, summary.latency_ns.max), (0, None));
    assert!(crate::summary::verdict::verdict(&summary).contains("No request could be placed"));
    assert!(notices(&summary).contains("vm1 vCPU1 has no clock map"), "{}", notices(&summary));
}

#[test]
fn a_clock_that_was_never_closed_rests_on_the_other_vcpus() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    streams(&run, &[0], true);
    let path = run.clock_path(&VmName::try_from("vm1").unwrap());
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    samples.push(clock_sample(0, 1150, 1150));
    stream(&path, samples, true);
    let summary = analyse(run.path()).unwrap();
    assert_eq!(summary.requests.count, 2);
    assert!(notices(&summary).contains("was not read again on vCPU1"), "{}", notices(&summary));
}

#[test]
fn a_clock_that_stepped_leaves_out_what_lies_at_the_step() {
    let (_scratch, run) = run_dir(&manifest());
    names(&run);
    // Request 0 ends at 450, request 1 goes from 550 to 800; the clock is set on between 480 and
    // 520.
    streams(&run, &[0, 100, 200, 300, 460, 480], true);
    let path = run.clock_path(&VmName::try_from("vm1").unwrap());
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let after = [600, 700, 800, 900, 1000, 1150];
    samples.extend(after.map(|us| clock_sample(1, us, us + 50_000)));
    stream(&path, samples, true);
    let summary = analyse(run.path()).unwrap();
    let by = summary.requests.unattributable_by;
    assert_eq!((summary.requests.count, by.clock_stepped), (2, 1));
    assert_eq!((summary.classes.all.count, summary.requests.unattributable), (1, 1));
    let [clock] = &summary.clock.vcpus[..] else { panic!("{:?}", summary.clock) };
    assert_eq!((clock.cut_count, clock.requests), (1, 1));
    assert_eq!((clock.cuts[0].after_ns, clock.cuts[0].before_ns), (480_000, 600_000));
    assert!((49_000_000..=50_000_000).contains(&clock.cuts[0].step_ns), "{clock:?}");
    assert!(notices(&summary).contains("the clock of vm1 vCPU1 stepped 1 time"));
}

#[test]
fn each_vcpu_has_its_own_clock_and_those_that_differ_are_named() {
    let mut manifest = manifest();
    let vcpu0 = ThreadRecord {
        tid: Tid(150),
        role: vslice_trace::thread::ThreadRole::Vcpu(VcpuId(0)),
        vcpu: Some(VcpuId(0)),
        ..manifest.vms[0].threads[1].clone()
    };
    manifest.vms[0].threads.push(vcpu0);
    let (_scratch, run) = run_dir(&manifest);
    names(&run);
    streams(&run, &[0, 500, 1150], true);
    let vm1 = VmName::try_from("vm1").unwrap();
    let path = run.clock_path(&vm1);
    let (mut samples, _) = read_all::<ClockSample>(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    samples.extend([10, 400, 1140].map(|us| clock_sample(0, us, us + 15_700)));
    // A vCPU that the VMM does not have: whatever the guest says of it is passed over.
    samples.extend([20, 600].map(|us| clock_sample(9, us, us * 2)));
    stream(&path, samples, true);
    std::fs::remove_file(run.requests_path(&vm1)).unwrap();
    let request = |index, (from, from_vcpu): (u64, u16), (to, to_vcpu): (u64, u16)| {
        let ahead = |vcpu| if vcpu == 0 { 15_700 } else { 0 };
        RequestItem::Request(Request {
            index,
            submitted: guest_at(from + ahead(from_vcpu)),
            completed: guest_at(to + ahead(to_vcpu)),
            vcpu_submitted: from_vcpu,
            vcpu_completed: to_vcpu,
            result: 4096,
        })
    };
    let requests = vec![
        request(0, (50, 1), (450, 1)),
        request(1, (500, 0), (600, 1)),
        request(2, (610, 0), (620, 0)),
        request(3, (630, 9), (640, 9)),
    ];
    stream(&run.requests_path(&vm1), requests, true);
    let summary = analyse(run.path()).unwrap();
    let by = summary.requests.unattributable_by;
    // Nothing was recorded of vCPU0's thread.
    assert_eq!((summary.requests.count, by.no_clock, by.not_recorded), (4, 1, 2));
    assert_eq!(summary.classes.all.count, 1);
    let lengths_ns: Vec<u64> = summary.worst.iter().map(|worst| worst.latency_ns).collect();
    let drawn_ns = [400_000_u64, 100_000, 10_000];
    assert!(lengths_ns.iter().zip(drawn_ns).all(|(ns, drawn)| ns.abs_diff(drawn) <= 8));
    let clocks: Vec<_> = summary.clock.vcpus.iter().map(|row| (row.vcpu.0, row.requests)).collect();
    assert_eq!(clocks, [(0, 2), (1, 1)]);
    let [apart] = &summary.clock.apart[..] else { panic!("{:?}", summary.clock.apart) };
    assert_eq!((apart.vcpu, apart.other_vcpu), (VcpuId(0), VcpuId(1)));
    assert!((15_699_000..=15_700_000).contains(&apart.apart_ns), "{apart:?}");
}
