//! The page of drawn runs: what is in it, and how large it is.

use super::bands::Bands;
use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use vslice_core::join::{
    Attribution, Bounds, Chain, ClockError, IoCheck, NoPhase, PartsNs, PhaseParts, PhaseVcpus,
    Waits,
};
use vslice_core::task::Task;
use vslice_core::timeline::{Antagonist, Reason, RunMode, Span, ThreadState, Who};
use vslice_core::units::{Tid, VcpuId};
use vslice_report::analyse::chosen::Asked;
use vslice_report::analyse::drawn::{
    guest_at, host_at, manifest, names, run_in, stream, streams, waking,
};
use vslice_report::analyse::drawn_observed as observed;
use vslice_report::analyse::{SummaryObserver, analyse_chosen, analyse_with};
use vslice_trace::manifest::Manifest;
use vslice_trace::observation::{ObservedOthersRecord, ObservedTaskRecord};
use vslice_trace::{ObservedItem, RequestItem, RunDir, VmName};
use vslice_wire::{BlockOperation, GuestTicks, ObservedFlags, ObservedRequest, Request};

/// The page of a run, and the data in it.
fn page_of(run: &RunDir, page: PageObserver) -> (String, Value, Summary) {
    page_of_part(run, &Asked::default(), page)
}

fn page_of_part(run: &RunDir, asked: &Asked, mut page: PageObserver) -> (String, Value, Summary) {
    let mut summary = SummaryObserver::default();
    analyse_chosen(run.path(), asked, &mut [&mut summary, &mut page]).unwrap();
    let summary = summary.into_summary().unwrap();
    let mut html = Vec::new();
    page.write(&summary, &mut html).unwrap();
    let html = String::from_utf8(html).unwrap();
    let data = data_in(&html);
    (html, data, summary)
}

/// As a browser takes it: the script ends with the first end tag.
fn data_in(html: &str) -> Value {
    let (_, after) = html.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
    let (json, _) = after.split_once("</script").unwrap();
    serde_json::from_str(json).unwrap()
}

fn drawn_run(scratch: &tempfile::TempDir, manifest: &Manifest) -> RunDir {
    let run = run_in(&scratch.path().join("run"), manifest);
    streams(&run, &[0, 500, 1150], true);
    names(&run);
    run
}

fn observed_run(
    scratch: &tempfile::TempDir,
    manifest: &Manifest,
    items: Vec<ObservedItem>,
) -> RunDir {
    let run = run_in(&scratch.path().join("run"), manifest);
    observed::host_streams(&run);
    names(&run);
    observed::observed_stream(&run, items);
    run
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn place(value: &Value) -> usize {
    usize::try_from(number(value)).unwrap()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

/// What must hold of every page.
fn check(data: &Value) {
    assert_eq!(data["schema"], SCHEMA);
    let mut points = 0;
    for group in rows(&data["groups"]) {
        let counts: u64 = rows(&group["bands"]).iter().map(|band| number(&band["count"])).sum();
        assert_eq!(counts, number(&group["attributed"]), "{group}");
        for band in rows(&group["bands"]) {
            let sums = ["parts_ns", "phases_ns", "causes_ns"]
                .map(|of| numbers(&band[of]).iter().sum::<u64>());
            assert_eq!(sums, [number(&band["latency_ns"]); 3], "{band}");
            assert!(band["from"].as_f64() < band["to"].as_f64(), "{band}");
        }
        check_over_time(group);
        let sample = &group["sample"];
        let columns =
            ["start_us", "latency_us", "dominant", "cause"].map(|of| rows(&sample[of]).len());
        points += columns[0];
        assert_eq!(columns, [columns[0]; 4]);
        assert!(
            number(&sample["of"]) >= columns[0] as u64
                && number(&sample["of"]) <= number(&group["count"])
        );
    }
    assert!(points <= POINTS_MAX && rows(&data["worst"]).len() <= WORST_MAX);
    for worst in rows(&data["worst"]) {
        check_worst(worst);
        assert!(number(&worst["group"]) < rows(&data["groups"]).len() as u64);
    }
}

/// Over time and over latency it is the same time.
fn check_over_time(group: &Value) {
    let over_time = &group["over_time"];
    let places = rows(&over_time["places"]).len();
    for (counts, all) in
        [("requests", &group["sample"]["of"]), ("attributed", &group["attributed"])]
    {
        let counts = numbers(&over_time[counts]);
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (places, number(all)));
    }
    for of in ["parts_ns", "phases_ns", "causes_ns"] {
        let bands: Vec<Vec<u64>> =
            rows(&group["bands"]).iter().map(|band| numbers(&band[of])).collect();
        let mut sums_ns = vec![0; bands.first().map_or(0, Vec::len)];
        for column in rows(&over_time[of]) {
            sums_ns[place(&column["of"])] = numbers(&column["ns"]).iter().sum();
            assert_eq!(rows(&column["ns"]).len(), places);
        }
        let by_latency = (0..sums_ns.len()).map(|at| bands.iter().map(|band| band[at]).sum());
        assert_eq!(sums_ns, by_latency.collect::<Vec<u64>>(), "{of} of {group}");
    }
}

fn check_worst(worst: &Value) {
    let latency_ns = number(&worst["latency_ns"]);
    let sums =
        ["parts_ns", "phases_ns", "causes_ns"].map(|of| numbers(&worst[of]).iter().sum::<u64>());
    assert_eq!(sums, [latency_ns; 3], "{worst}");
    let bounds = rows(&worst["bounds"]);
    assert_eq!(bounds[0]["at_ns"], json!(0));
    assert_eq!(bounds[bounds.len() - 1]["at_ns"], worst["latency_ns"]);
    let widest = bounds.iter().map(|row| number(&row["bound_ns"])).max();
    assert_eq!(widest, worst["clock_bound_ns"].as_u64());
    let mut at = 0;
    for phase in rows(&worst["phases"]) {
        assert_eq!(number(&phase["from_ns"]), at, "{worst}");
        at = number(&phase["to_ns"]);
    }
    assert_eq!(at, latency_ns, "{worst}");
    for (place, total_ns) in numbers(&worst["phases_ns"]).into_iter().enumerate() {
        let of_phase = rows(&worst["phases"]).iter().filter(|row| row["phase"] == json!(place));
        let drawn_ns: u64 = of_phase
            .map(|row| number(&row["to_ns"]) - number(&row["from_ns"]) - number(&row["gaps_ns"]))
            .sum();
        let gaps_ns: u64 = rows(&worst["phases"]).iter().map(|row| number(&row["gaps_ns"])).sum();
        let queued = if place == Phase::Queued as usize { gaps_ns } else { 0 };
        assert_eq!(drawn_ns + queued, total_ns, "{worst}");
    }
    let mut at = 0;
    for span in rows(&worst["spans"]) {
        assert_eq!(number(&span["from_ns"]), at, "{worst}");
        at = number(&span["to_ns"]);
    }
    assert!(at <= latency_ns && (at == latency_ns || number(&worst["cut_spans"]) > 0), "{worst}");
    for pcpu in rows(&worst["pcpus"]) {
        assert_eq!(pcpu["stays"].is_null(), pcpu["unknown"].is_string(), "{pcpu}");
        let mut at = 0;
        for stay in pcpu["stays"].as_array().into_iter().flatten() {
            assert!(
                number(&stay["from_ns"]) >= at && number(&stay["to_ns"]) <= latency_ns,
                "{pcpu}"
            );
            at = number(&stay["to_ns"]);
        }
    }
}

#[test]
fn the_readers_requests_are_those_of_the_summary() {
    let scratch = tempfile::tempdir().unwrap();
    let run = drawn_run(&scratch, &manifest());
    let (_, data, summary) = page_of(&run, PageObserver::default());
    check(&data);
    assert_eq!(data["summary"], serde_json::to_value(&summary).unwrap());
    assert_eq!(data["sentence"], json!(vslice_report::summary::verdict::verdict(&summary)));
    let folded_ns: u64 = rows(&data["folded"]).iter().map(|row| number(&row[1])).sum();
    let off_ns = summary.vcpus.iter().flat_map(|vcpu| &vcpu.off_cpu).map(|row| row.total_ns);
    assert!(folded_ns > 0 && folded_ns >= off_ns.sum(), "{}", data["folded"]);
    let [group] = rows(&data["groups"]) else { panic!("{data}") };
    assert_eq!(
        [&group["vm"], &group["disk"], &group["operation"], &group["made_by"], &group["place"]],
        [&json!("vm1"), &json!("vda"), &json!("read"), &json!("reader"), &Value::Null]
    );
    assert_eq!(group["latency_ns"], serde_json::to_value(summary.latency_ns).unwrap());
    assert_eq!((&group["count"], &group["attributed"]), (&json!(2), &json!(2)));
    let sample = &group["sample"];
    assert_eq!((&sample["of"], &sample["slowest"]), (&json!(2), &json!(2)));
    assert_eq!(sample["start_us"], json!([50, 550]));
    assert_eq!(sample["latency_us"], json!([400, 250]));
    let name = |of: &str, number: &Value| data[of][place(number)]["name"].clone();
    assert_eq!(name("parts", &sample["dominant"][0]), "preempt_wait");
    assert_eq!(name("causes", &sample["cause"][0]), "pcpu_wait");
}

#[test]
fn a_page_about_a_part_says_which_and_its_times_are_those_of_the_run() {
    let scratch = tempfile::tempdir().unwrap();
    let run = drawn_run(&scratch, &manifest());
    let path = run.events_path(PcpuId(0));
    std::fs::remove_file(&path).unwrap();
    let lost = |from, to| {
        let kind = HostEventKind::Lost { until: host_at(to), count: 1 };
        HostEvent { time: host_at(from), pcpu: PcpuId(0), kind }
    };
    stream(&path, vec![lost(10, 20), lost(880, 950)], true);
    let (since_ns, until_ns) = (Some(500_000), Some(900_000));
    let asked = Asked { since_ns, until_ns, ..Asked::default() };
    let (_, data, _) = page_of_part(&run, &asked, PageObserver::default());
    assert_eq!(data["part"], "part of the run: 500 us to 900 us of 1.10 ms; left out: 1 request");
    assert_eq!((number(&data["window_from_ns"]), number(&data["window_ns"])), (500_000, 900_000));
    assert_eq!(numbers(&data["groups"][0]["sample"]["start_us"]), [550]);
    let lost: Vec<u64> = rows(&data["lost"]).iter().map(|row| number(&row["from_us"])).collect();
    assert_eq!(lost, [880]);
    let (_, whole, _) = page_of(&run, PageObserver::default());
    assert!(whole["part"].is_null() && rows(&whole["lost"]).len() == 2);
}

#[test]
fn the_slowest_is_drawn_with_who_was_on_its_pcpu() {
    let scratch = tempfile::tempdir().unwrap();
    let run = drawn_run(&scratch, &manifest());
    let (_, data, _) = page_of(&run, PageObserver::default());
    let slowest = &data["worst"][0];
    let us = |of: &Value| number(of) / 1_000;
    let spans: Vec<(u64, u64, &Value)> = rows(&slowest["spans"])
        .iter()
        .map(|span| {
            (us(&span["from_ns"]), us(&span["to_ns"]), &data["parts"][place(&span["part"])]["name"])
        })
        .collect();
    let (on, wait) = (json!("on_pcpu"), json!("preempt_wait"));
    assert_eq!(spans, [(0, 50, &on), (50, 350, &wait), (350, 400, &on)]);
    for worst in rows(&data["worst"]) {
        for span in rows(&worst["spans"]) {
            let label = span["label"].as_str().unwrap();
            assert!(data["full_text"].as_str().unwrap().contains(label), "{label}");
        }
    }
    let [pcpu] = rows(&slowest["pcpus"]) else { panic!("{slowest}") };
    assert_eq!(pcpu["pcpu"], json!(1));
    let stays: Vec<(u64, u64, &Value, &Value)> = rows(&pcpu["stays"])
        .iter()
        .map(|stay| (us(&stay["from_ns"]), us(&stay["to_ns"]), &stay["name"], &stay["is_own_vm"]))
        .collect();
    let (own, other) = (json!("vm1 vCPU1"), json!("vm2 vCPU1"));
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(stays, [(0, 50, &own, &yes), (50, 350, &other, &no), (350, 400, &own, &yes)]);
}

#[test]
fn what_comes_after_a_record_was_cut_off_is_nobodys() {
    let scratch = tempfile::tempdir().unwrap();
    let run = run_in(&scratch.path().join("run"), &manifest());
    streams(&run, &[0, 500, 1150], false);
    names(&run);
    // Its record ends at 1200, when vCPU1 has just come; the request and the other pCPU go on.
    let request = Request {
        index: 0,
        submitted: guest_at(950),
        completed: guest_at(1250),
        vcpu_submitted: 1,
        vcpu_completed: 1,
        result: 4096,
    };
    let vm1 = VmName::try_from("vm1").unwrap();
    let paths = [run.requests_path(&vm1), run.events_path(PcpuId(0))];
    paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    stream(&paths[0], vec![RequestItem::Request(request)], true);
    stream(&paths[1], vec![waking(700), waking(1280)], true);
    let (_, data, _) = page_of(&run, PageObserver::default());
    check(&data);
    let [lost] = rows(&data["lost"]) else { panic!("{}", data["lost"]) };
    assert_eq!((&lost["pcpu"], &lost["to_us"]), (&json!(1), &Value::Null));
    let [worst] = rows(&data["worst"]) else { panic!("{}", data["worst"]) };
    let from_us = lost["from_us"].as_i64().unwrap() - worst["start_ns"].as_i64().unwrap() / 1_000;
    let ends_us: Vec<i64> = rows(&worst["pcpus"])
        .iter()
        .flat_map(|pcpu| rows(&pcpu["stays"]))
        .map(|stay| stay["to_ns"].as_i64().unwrap() / 1_000)
        .collect();
    assert_eq!(ends_us, [50, from_us], "it was there until 1000, and vm2's until the record ends");
}

const HOSTILE: &str = "</script><script>alert(1)</script><!--&\"'";

fn hostile_manifest() -> Manifest {
    let mut manifest = observed::observed_manifest();
    manifest.plan_name = HOSTILE.to_owned();
    let observation = manifest.vms[0].observation.as_mut().unwrap();
    let name = HOSTILE.to_owned();
    observation.tasks =
        vec![ObservedTaskRecord { number: 3, pid: 41, name, title: None, title_before: None }];
    observation.devices[1].name = HOSTILE.to_owned();
    manifest
}

fn hostile_request() -> ObservedItem {
    let mut request = observed::request(1, [100, 120, 400], [0, 0, 1]);
    (request.task, request.flags) = (3, ObservedFlags::SYNC);
    ObservedItem::Request(request)
}

#[test]
fn no_name_of_a_guest_is_markup() {
    let scratch = tempfile::tempdir().unwrap();
    let run = observed_run(&scratch, &hostile_manifest(), vec![hostile_request()]);
    let (html, data, _) = page_of(&run, PageObserver::default());
    check(&data);
    assert!(!html.contains("alert(1)</script>"));
    assert_eq!(html.matches("</script>").count(), KIND.page("", "0").matches("</script>").count());
    assert!(html.contains("<title>&lt;/script&gt;&lt;script&gt;alert(1)"), "the title is text");
    let group = rows(&data["groups"]).iter().find(|group| group["made_by"] == "guest").unwrap();
    assert_eq!(group["disk"], json!(HOSTILE));
    let worst = rows(&data["worst"]).iter().find(|worst| worst["pid"] == json!(41)).unwrap();
    assert_eq!(worst["process"], json!(HOSTILE));
}

#[test]
fn an_observed_request_has_its_phases_and_marks_as_the_text_words_them() {
    let scratch = tempfile::tempdir().unwrap();
    let run = observed_run(&scratch, &hostile_manifest(), vec![hostile_request()]);
    let (_, data, summary) = page_of(&run, PageObserver::default());
    let at = rows(&data["groups"]).iter().position(|group| group["made_by"] == "guest").unwrap();
    let group = &data["groups"][at];
    let row = &summary.observed.as_ref().unwrap().operations[place(&group["place"])];
    assert_eq!(group["latency_ns"], serde_json::to_value(row.latency_ns).unwrap());
    assert_eq!(group["operation"], json!("sync write"));
    let worst = rows(&data["worst"]).iter().find(|worst| worst["group"] == json!(at)).unwrap();
    let phases: Vec<(&str, u64, u64, &Value)> = rows(&worst["phases"])
        .iter()
        .map(|row| {
            let name = data["phases"][place(&row["phase"])]["name"].as_str().unwrap();
            (name, number(&row["from_ns"]) / 10_000, number(&row["to_ns"]) / 10_000, &row["vcpu"])
        })
        .collect();
    let [zero, one] = [json!(0), json!(1)];
    assert_eq!(
        phases,
        [
            ("guest_queue", 0, 2, &zero),
            ("queued", 2, 4, &zero),
            ("device", 4, 6, &zero),
            ("completed", 6, 30, &one),
        ]
    );
    let labels: Vec<&str> =
        rows(&worst["marks"]).iter().map(|mark| mark["label"].as_str().unwrap()).collect();
    assert_eq!(labels[0], "queued on vCPU0");
    let text = data["full_text"].as_str().unwrap();
    let one_line = text.split_whitespace().collect::<Vec<&str>>().join(" ");
    assert!(labels.iter().all(|label| one_line.contains(label)), "{labels:?}");
    // While the disk has it the vCPU is no cause.
    let causes = numbers(&worst["causes_ns"]);
    assert_eq!(causes[0], numbers(&worst["phases_ns"])[Phase::Device as usize]);
}

#[test]
fn what_a_guest_did_not_send_is_below_the_lowest_band() {
    let scratch = tempfile::tempdir().unwrap();
    let mut manifest = hostile_manifest();
    let observation = manifest.vms[0].observation.as_mut().unwrap();
    observation.slower_than_us = 50;
    observation.others = vec![ObservedOthersRecord {
        device: 1,
        operation: BlockOperation::Write,
        is_sync: true,
        count: 199,
        bytes: 0,
        total_ns: 1_000,
    }];
    let run = observed_run(&scratch, &manifest, vec![hostile_request()]);
    let (_, data, _) = page_of(&run, PageObserver::default());
    check(&data);
    let group = rows(&data["groups"]).iter().find(|group| group["made_by"] == "guest").unwrap();
    assert_eq!((&group["faster"], &group["sent_ns_from"]), (&json!(199), &json!(50_000)));
    assert_eq!(group["latency_ns"]["p99"], Value::Null);
    for band in rows(&group["bands"]) {
        assert_eq!((&band["from"], &band["to"]), (&json!(99.5), &json!(99.9)), "{band}");
    }
}

/// A request that began then, with these parts in phases that are not known.
pub(super) fn breakdown(
    start: u64,
    parts_ns: &[u64],
    attribution: Attribution,
    request: GuestRequest,
) -> Breakdown {
    let mut parts = PartsNs::default();
    Part::ALL.into_iter().zip(parts_ns).for_each(|(part, length_ns)| parts.add(part, *length_ns));
    Breakdown {
        request,
        vcpu: VcpuId(0),
        vcpus: PhaseVcpus::all(VcpuId(0)),
        start: HostNs(start),
        issued: None,
        end: HostNs(start + parts.total_ns()),
        bounds: Bounds::default(),
        parts,
        attribution,
        clock_error: ClockError::default(),
        chain: Chain::default(),
        waits: Waits::default(),
        io: Err(NoPhase::NotRecorded),
        io_check: IoCheck::Unchecked,
        phases: PhaseParts::unknown(parts),
    }
}

pub(super) fn observed_by(turn: u64) -> ObservedRequest {
    let operations = [BlockOperation::Read, BlockOperation::Write, BlockOperation::Flush];
    ObservedRequest {
        device: u16::try_from(turn % 7).unwrap(),
        operation: operations[usize::try_from(turn % 3).unwrap()],
        flags: ObservedFlags(0),
        sector: turn,
        bytes: 4096,
        queued: GuestTicks(0),
        issued: GuestTicks(0),
        completed: GuestTicks(0),
        vcpu_queued: 0,
        vcpu_issued: 0,
        vcpu_completed: 0,
        task: u32::try_from(turn % 5).unwrap(),
        result: 0,
    }
}

proptest! {
    /// Against the definition, with every request kept.
    #[test]
    fn a_band_has_the_attributed_requests_between_its_percentiles(
        requests in prop::collection::vec(
            (prop::collection::vec(0..4_u64, Part::ALL.len()), prop::bool::weighted(0.8)), 1..300
        ),
        // Short ones have buckets of their own, long ones share them.
        scale in prop::sample::select(vec![1_u64, 74_999]),
        faster in prop_oneof![Just(0_u64), 0..3_000_u64],
    ) {
        let mut bands = Bands::new(Precision::Coarse);
        let made: Vec<Breakdown> = requests.iter().map(|(parts_ns, is_attributed)| {
            let attribution =
                if *is_attributed { Attribution::Attributed } else { Attribution::Lost };
            let parts_ns: Vec<u64> = parts_ns.iter().map(|length| length * scale).collect();
            breakdown(0, &parts_ns, attribution, GuestRequest::Observed(observed_by(0)))
        }).collect();
        made.iter().for_each(|of| bands.add(of, &bands::causes_ns(of)));
        let told = bands.bands(faster);
        let attributed = || made.iter().filter(|of| of.attribution == Attribution::Attributed);
        prop_assert_eq!(told.iter().map(|band| band.count).sum::<u64>(), attributed().count() as u64);
        let LatencyNs { p50, p90, p99, p999, p9999, .. } = bands.latency_ns(faster);
        let edge = |percentile: f64| match percentile {
            50.0 => p50,
            90.0 => p90,
            99.0 => p99,
            99.9 => p999,
            99.99 => p9999,
            _ => None,
        };
        for band in told {
            let within: Vec<&Breakdown> = attributed().filter(|of| {
                edge(band.from).is_none_or(|edge| of.latency_ns() > edge)
                    && edge(band.to).is_none_or(|edge| of.latency_ns() <= edge)
            }).collect();
            prop_assert_eq!(within.len() as u64, band.count);
            let sum = |of: &dyn Fn(&Breakdown) -> u64| within.iter().map(|one| of(one)).sum::<u64>();
            prop_assert_eq!(Part::ALL.map(|part| sum(&|of| of.parts.get(part))), band.parts_ns);
            prop_assert_eq!(sum(&Breakdown::latency_ns), band.latency_ns);
            prop_assert_eq!(within.iter().map(|of| of.latency_ns()).max(), Some(band.latency_to_ns));
            prop_assert_eq!(within.iter().map(|of| of.latency_ns()).min(), Some(band.latency_from_ns));
        }
    }
}

/// As full as a chain may be, with as long names as there are, of a request that may be drawn.
fn chain(of: &Breakdown) -> Chain {
    let is_slow = of.latency_ns() > 536_960_000;
    let piece_ns = of.latency_ns() / 100 + 1;
    let task = |tid| Task { name: HOSTILE.to_owned(), ..Task::unknown(Tid(tid)) };
    let antagonists: Vec<Antagonist> = (0..20)
        .map(|tid| Antagonist::new(Who::Thread(Arc::new(task(900 + tid))), piece_ns / 20))
        .collect();
    let span = |place: u64| {
        let start = HostNs(of.start.0 + place * piece_ns);
        let end = HostNs(start.0 + piece_ns).min(of.end);
        let (tid, pcpu) = (observed::VM1_VCPU0, PcpuId(u32::try_from(place % 8).unwrap()));
        match place % 2 {
            0 => {
                let state = ThreadState::Running { pcpu, mode: RunMode::Unsplit };
                Span { tid, start, end, state, antagonists: Vec::new() }
            }
            _ => {
                let reason = Reason::Timeslice;
                let state = ThreadState::PreemptWait { pcpu, reason, stack: None, lock: None };
                Span { tid, start, end, state, antagonists: antagonists.clone() }
            }
        }
    };
    if is_slow { (0..100).map(span).collect() } else { Chain::default() }
}

/// Tells the page of so many more requests than the run has.
struct Many {
    page: PageObserver,
    requests: u64,
}

impl Observer for Many {
    fn start(&mut self, run: &Run<'_>) {
        self.page.start(run);
    }

    fn event(&mut self, event: &HostEvent, tasks: &Tasks) {
        self.page.event(event, tasks);
    }

    fn span(&mut self, span: &Span) {
        self.page.span(span);
    }

    fn request(&mut self, vm: VmIndex, breakdown: &Breakdown) {
        self.page.request(vm, breakdown);
    }

    fn end(&mut self, run: &Run<'_>, end: &RunEnd<'_>) {
        let mut bits = 1_u64;
        for turn in 0..self.requests {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let latency_ns = 20_000 + (1_u64 << (bits >> 59)) / 4 + (bits >> 33) % 90_000;
            let parts_ns = [latency_ns / 3, 0, 0, 0, 0, latency_ns - latency_ns / 3];
            let request = GuestRequest::Observed(observed_by(turn));
            let start = self.page.start.0 + turn * 10_000;
            let vm = VmIndex(usize::try_from(turn % 2).unwrap());
            let mut made = breakdown(start, &parts_ns, Attribution::Attributed, request);
            made.chain = chain(&made);
            self.page.request(vm, &made);
        }
        self.page.end(run, end);
    }
}

#[test]
fn a_page_of_a_million_requests_is_small_and_says_of_how_many_it_is_a_sample() {
    let scratch = tempfile::tempdir().unwrap();
    let run = observed_run(&scratch, &hostile_manifest(), vec![hostile_request()]);
    let (mut summary, requests) = (SummaryObserver::default(), 1_000_000);
    let mut many = Many { page: PageObserver::default(), requests };
    analyse_with(run.path(), &mut [&mut summary, &mut many]).unwrap();
    let page = many.page;
    let points: usize = page.tallies.values().map(|tally| tally.sample.len()).sum();
    assert!(points <= POINTS_KEPT_MAX, "{points} points are kept");
    let mut html = Vec::new();
    page.write(&summary.into_summary().unwrap(), &mut html).unwrap();
    assert!(html.len() <= BYTES_MAX, "{} bytes", html.len());
    let data = data_in(&String::from_utf8(html).unwrap());
    check(&data);
    let groups = rows(&data["groups"]);
    assert_eq!(groups.len(), GROUPS_MAX);
    let told: u64 = groups.iter().map(|group| number(&group["count"])).sum();
    // The drawn run has one of its own beside two of the reader.
    assert_eq!(told + number(&data["requests_beyond"]), requests + 3);
    let sampled = groups.iter().find(|group| number(&group["count"]) > 10_000).unwrap();
    let sample = &sampled["sample"];
    let points = rows(&sample["start_us"]).len() as u64;
    assert_eq!(sample["of"], sampled["count"]);
    assert!(points >= 500 && number(&sample["slowest"]) == points.div_ceil(10), "{points}");
    let longest = numbers(&sample["latency_us"]).into_iter().max().unwrap();
    assert_eq!(longest, (number(&sampled["latency_ns"]["max"]) + 500) / 1_000);
}

#[test]
fn what_has_no_room_shows_less_of_the_requests_and_keeps_the_figures() {
    let scratch = tempfile::tempdir().unwrap();
    let run = observed_run(&scratch, &hostile_manifest(), vec![hostile_request()]);
    let data = |bytes_max| {
        let mut summary = SummaryObserver::default();
        let mut many = Many { page: PageObserver::default(), requests: 30_000 };
        analyse_with(run.path(), &mut [&mut summary, &mut many]).unwrap();
        let html = many.page.html(&summary.into_summary().unwrap(), bytes_max).unwrap();
        assert!(html.len() <= bytes_max, "{} bytes", html.len());
        data_in(&html)
    };
    let (whole, less) = (data(BYTES_MAX), data(500_000));
    check(&less);
    let points = |data: &Value| {
        let of_group = |group: &Value| rows(&group["sample"]["start_us"]).len();
        rows(&data["groups"]).iter().map(of_group).sum::<usize>()
    };
    assert!(points(&less) < points(&whole) && points(&less) > 0);
    for (less, whole) in rows(&less["groups"]).iter().zip(rows(&whole["groups"])) {
        let figures = |group: &Value| (group["bands"].clone(), group["sample"]["of"].clone());
        assert_eq!(figures(less), figures(whole));
    }
}
