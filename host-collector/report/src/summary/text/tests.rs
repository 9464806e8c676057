use super::*;
use crate::summary::advice::Advice;
use crate::summary::advice::tests::with_a_command;
use crate::summary::clock::{ClockCheck, HogCheck};
use crate::summary::group::{AntagonistGroup, GroupKind};
use crate::summary::io::{IoDisk, UnphasedBy};
use crate::summary::model::{Antagonist, Lost, Members, RunStatus, Summary, Vcpu};
use crate::summary::{Facts, SummaryBuilder, VmThreads, Warning, example};
use std::collections::HashSet;
use std::path::Path;
use vslice_core::text::columns;
use vslice_core::units::HostNs;

const PLAIN: Style = Style::PLAIN;

/// Compares with a file beside this one; with `VSLICE_BLESS=1` writes it.
pub(super) fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/summary/text").join(name);
    if std::env::var_os("VSLICE_BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(text == golden, "differs from {name}; VSLICE_BLESS=1 accepts this:\n{text}");
}

fn empty() -> Summary {
    let mut facts = example::facts();
    facts.run.status = RunStatus::Partial { reason: "vm1 never connected".to_owned() };
    SummaryBuilder::new(example::START, example::vms()).finish(facts, &example::names())
}

#[test]
fn a_page_about_a_part_of_a_run_begins_with_that() {
    let part = example::part();
    assert_golden("front_part.golden", &render(&part, PLAIN));
    let page = render_full(&part, PLAIN);
    let front = render(&part, PLAIN);
    assert_eq!(page.lines().take(2).collect::<Vec<_>>(), front.lines().take(2).collect::<Vec<_>>());
    let lines = ["Own cost", "Losses", "VMM threads"];
    let found = |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let [cost, losses, _] = lines.map(found);
    let said = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(cost.contains("of CPU time") && said.contains("written (of the whole run)"), "{page}");
    assert!(losses.contains("in this part: on the host"), "{losses}");
    assert!(page.contains("of the requests of this part"), "{page}");
    let threads = page.lines().skip_while(|line| !line.starts_with("VMM threads")).nth(2).unwrap();
    assert!(threads.split_whitespace().any(|cell| cell == "?"), "per request: {threads}");
}

#[test]
fn whatever_the_width_the_first_advice_is_on_the_first_page() {
    for summary in [with_a_command(), example::summary()] {
        for width in [60, 80, 100, 200] {
            let page = render(&summary, Style { width, ..PLAIN });
            for text in ["\nAdvice ", "1. Keep vm2 vCPU1 off pCPU1", "\nSlowest request"] {
                assert!(page.contains(text), "{text} is not in\n{page}");
            }
        }
    }
}

#[test]
fn the_answer_with_a_command() {
    assert_golden("front_advice.golden", &render(&with_a_command(), PLAIN));
}

#[test]
fn the_page_of_the_example() {
    assert_golden("example.golden", &render_full(&example::summary(), PLAIN));
}

#[test]
fn the_answer_of_the_example() {
    assert_golden("front.golden", &render(&example::summary(), PLAIN));
}

#[test]
fn the_answer_of_a_run_that_ended_early() {
    let mut summary = example::summary();
    summary.facts.status = RunStatus::Partial { reason: "vm2 died of signal 9".to_owned() };
    assert_golden("front_partial.golden", &render(&summary, PLAIN));
    assert_golden("front_empty.golden", &render(&empty(), PLAIN));
}

#[test]
fn of_a_run_that_did_not_begin_nothing_is_a_share() {
    let mut summary = attached();
    summary.facts.measured_ns = 0;
    let page = render(&summary, PLAIN);
    assert!(page.contains("Nothing was measured, so there is nothing to explain."), "{page}");
    assert!(!page.contains('%'), "{page}");
}

#[test]
fn the_answer_of_a_slow_disk_is_about_the_disk() {
    let mut builder = SummaryBuilder::new(example::START, example::vms());
    for index in 0..1000 {
        let wait_ns = if index % 50 == 0 { 30_000_000 } else { 300_000 };
        let spans = vec![
            example::running(20_000),
            example::blocked(vslice_core::timeline::Reason::Halt, wait_ns),
            example::woken(5_000),
            example::running(10_000),
        ];
        let at = HostNs(example::START.0 + index * 40_000_000);
        let mut breakdown = example::request(index, at, spans);
        example::set_io(&mut breakdown, 15_000, wait_ns);
        breakdown.chain.spans().for_each(|span| builder.span(span));
        builder.breakdown(example::VM1, &breakdown);
    }
    let mut facts = example::facts();
    facts.run.lost = Lost::default();
    let page = render(&builder.finish(facts, &example::names()), PLAIN);
    assert_golden("front_slow_disk.golden", &page);
    assert!(page.contains("(vda) or its queue for 95 % of the time; meanwhile"), "{page}");
}

/// The example's VMs as they are seen by somebody who attaches to them and asks them nothing.
fn attached() -> Summary {
    let mut summary = example::summary();
    let unasked = SummaryBuilder::new(example::START, vec![]);
    let mut facts = Facts { clocks: vec![], disks: vec![], ..example::facts() };
    (facts.run.lost, facts.run.hogs) = (Lost::default(), vec![]);
    facts.run.plan = "attach".to_owned();
    let none = unasked.finish(facts, &example::names());
    summary = Summary {
        vcpus: summary.vcpus,
        lock_waits: summary.lock_waits,
        stacks: summary.stacks,
        ..none
    };
    summary
}

#[test]
fn the_answer_without_a_guests_word_is_the_hosts_view() {
    let mut summary = attached();
    summary.facts.host_io = example::host_io();
    assert_golden("front_host_view.golden", &render(&summary, PLAIN));
    assert_golden("host_view.golden", &render_full(&summary, PLAIN));
}

#[test]
fn polling_for_an_idle_guest_has_a_row_though_it_is_no_reason_to_leave() {
    let mut summary = attached();
    assert!(!render(&summary, PLAIN).contains("halt polling"));
    let busy = summary.vcpus.iter_mut().max_by_key(|vcpu| vcpu.on_pcpu_ns).unwrap();
    busy.halt_poll_ns = Some(busy.observed_ns / 10);
    let page = render(&summary, PLAIN);
    let row = page.lines().find(|line| line.contains("(halt polling, on a pCPU)"));
    assert!(row.is_some_and(|row| row.contains("10.0 %")), "{page}");
}

#[test]
fn the_answer_of_vms_that_were_attached_to_is_about_their_vcpus() {
    let page = render(&attached(), PLAIN);
    assert_golden("front_attach.golden", &page);
    for of_requests in ["every request", "0 requests", "Latency", "clock"] {
        assert!(!page.contains(of_requests), "{of_requests}: {page}");
    }
    let whole = render_full(&attached(), PLAIN);
    assert!(whole.contains("Losses    none: every scheduler event was recorded\n"), "{whole}");
}

/// What a whole page says of losses.
fn losses_of(change: impl FnOnce(&mut Summary)) -> String {
    let mut summary = attached();
    change(&mut summary);
    let page = render_full(&summary, PLAIN);
    let losses = page.lines().find_map(|line| line.strip_prefix("Losses    "));
    losses.expect("every page has that line").to_owned()
}

#[test]
fn of_losses_no_more_is_said_than_is_known() {
    assert_eq!(losses_of(|_| {}), "none: every scheduler event was recorded");
    assert_eq!(losses_of(|summary| summary.facts.measured_ns = 0), "nothing was measured");
    let partial = |summary: &mut Summary| {
        summary.facts.status = RunStatus::Partial { reason: "it was killed".to_owned() };
    };
    assert_eq!(losses_of(partial), "none reported before the recording ends");
    let lost = |summary: &mut Summary| {
        summary.facts.lost = Lost { records: 3, intervals: 1, total_ns: 5_000_000 };
    };
    assert_eq!(
        losses_of(lost),
        "on the host: 3 scheduler events in 1 interval, 5.00 ms in all",
        "nobody in a guest counted requests"
    );
}

#[test]
fn the_answer_of_a_sampled_run_says_what_it_rests_on() {
    let page = render(&example::sampled(), PLAIN);
    assert_golden("front_sampled.golden", &page);
    assert!(page.lines().next().unwrap().contains("(sampled)"));
}

fn doubled<Item: Clone>(items: &[Item]) -> Vec<Item> {
    [items, items].concat()
}

/// As much of everything as a page could be asked to show.
fn crowded(mut summary: Summary, name: &str) -> Summary {
    for _ in 0..3 {
        let antagonists = summary.vcpus.iter_mut().map(|vcpu| &mut vcpu.antagonists);
        antagonists.for_each(|rows| *rows = doubled(rows));
        let groups = summary.vcpus.iter_mut().map(|vcpu| &mut vcpu.antagonist_groups);
        groups.for_each(|rows| *rows = doubled(rows));
        summary.vcpus = doubled(&summary.vcpus);
        summary.facts.scheduled = doubled(&summary.facts.scheduled);
        let sampled = summary.facts.sampled.iter_mut();
        sampled.for_each(|sampled| sampled.vcpus = doubled(&sampled.vcpus));
        for class in [&mut summary.classes.all, &mut summary.classes.p99] {
            class.antagonists = doubled(&class.antagonists);
            class.antagonist_groups = doubled(&class.antagonist_groups);
        }
        summary.worst.iter_mut().for_each(|worst| worst.chain = doubled(&worst.chain));
    }
    summary.facts.warnings = vec![Warning::Notice { text: name.repeat(20) }; 40];
    summary.facts.status = RunStatus::Partial { reason: name.repeat(20) };
    summary
}

#[test]
fn the_answer_is_a_page_whatever_the_run_was() {
    for name in ["vm", "a name of many words that is rather long", &"n".repeat(1000)] {
        let mut named = with_every_string(name);
        named.latency_ns = example::summary().latency_ns;
        let mut sampled = example::sampled();
        sampled.facts.plan = name.repeat(3);
        let mut part = with_every_string_of(example::part(), name);
        part.latency_ns = example::summary().latency_ns;
        for summary in [named, part, example::summary(), attached(), sampled, empty()] {
            let summary = crowded(summary, name);
            for width in [60, 80, 100, 200] {
                let page = front::unchecked(&summary, Style { width, ..PLAIN });
                for line in page.lines() {
                    assert!(columns(line) <= width, "{width}: {line:?}");
                }
                let lines_max = (LINES_MAX * 100).div_ceil(width.min(100));
                assert!(page.lines().count() <= lines_max, "{width}: {page}");
            }
        }
    }
}

#[test]
fn a_narrow_answer_says_the_same() {
    for mut summary in [example::summary(), attached(), example::sampled()] {
        // How much of advice fits, and of what if beside it, depends on the width.
        summary.advice = Advice::default();
        let wide = render(&summary, Style { width: 200, ..PLAIN });
        for width in [60, 80, 100] {
            let page = render(&summary, Style { width, ..PLAIN });
            let (all, there) = (words(&wide), words(&page));
            let lost: Vec<_> = all.difference(&there).collect();
            assert!(lost.is_empty(), "{width}: {lost:?} are not in\n{page}");
        }
    }
}

#[test]
fn the_page_of_a_run_with_exits() {
    let page = render_full(&example::with_exits(), PLAIN);
    assert_golden("exits.golden", &page);
    assert!(!render_full(&example::summary(), PLAIN).contains("Exits"), "they were not recorded");
}

#[test]
fn the_page_of_a_run_whose_clock_is_not_sound() {
    let summary = example::unsound_clock();
    let page = render_full(&summary, PLAIN);
    assert_golden("unsound_clock.golden", &page);
    let coloured = render_full(&summary, Style { colour: true, ..PLAIN });
    assert!(coloured.contains("\x1b[1;31mVIOLATED (exchange)"), "it is red");
    assert!(
        !render_full(&example::summary(), Style { colour: true, ..PLAIN }).contains("\x1b[1;31mok")
    );
    let mut unseen = summary;
    unseen.clock.check = ClockCheck { unseen: 7, ..ClockCheck::default() };
    unseen.clock.vcpus[0].ptp_check.violations = 0;
    let hogs = std::mem::take(&mut unseen.clock.vcpus[0].hog_check);
    assert!(
        render_full(&unseen, PLAIN)
            .contains("not checked (exchange): request times are accurate to within")
    );
    // What the hogs say is a check of its own.
    unseen.clock.vcpus[0].hog_check = HogCheck { violations: 0, ..hogs };
    assert!(
        render_full(&unseen, PLAIN).contains("ok (exchange): request times are accurate to within")
    );
    unseen.clock.vcpus[0].cut_count = 9;
    assert!(render_full(&unseen, PLAIN).contains("          and 7 more steps\n"));
}

#[test]
fn a_summary_that_contradicts_itself_is_not_printed_but_said_to() {
    let mut summary = example::summary();
    summary.classes.p99.antagonists[0].antagonist.share = 2.28;
    summary.parts.p99.add(vslice_core::join::Part::Halt, 1);
    assert_golden("inconsistent.golden", &render_full(&summary, PLAIN));
}

#[test]
fn however_often_a_summary_contradicts_itself_its_answer_is_a_page() {
    let mut summary = example::summary();
    summary.vcpus.iter_mut().for_each(|vcpu| vcpu.observed_ns += 1);
    let vcpus = summary.vcpus.clone();
    summary.vcpus.extend(std::iter::repeat_n(vcpus, 50).flatten());
    let broken = crate::summary::laws::check(&summary).unwrap_err().violations.len();
    assert!(broken > 100, "{broken}");
    let page = render(&summary, PLAIN);
    assert!(page.lines().count() <= LINES_MAX, "{page}");
    assert!(page.contains(&format!("and {} more: --full shows them all", broken - 10)), "{page}");
    let whole = render_full(&summary, PLAIN);
    assert!(whole.lines().count() > broken, "{}", whole.lines().count());
}

#[test]
fn the_page_of_a_run_without_requests() {
    let page = render_full(&empty(), PLAIN);
    assert_golden("empty.golden", &page);
    assert!(!page.contains("NaN") && !page.contains("inf"));
    let no_vms = SummaryBuilder::new(example::START, vec![]);
    let page = render_full(&no_vms.finish(example::facts(), &example::names()), PLAIN);
    assert!(page.contains("0 guests"));
}

#[test]
fn the_page_of_vms_that_were_attached_to() {
    let vms = example::vms().into_iter().map(|vm| VmThreads { block_bytes: None, ..vm }).collect();
    let facts = Facts { clocks: vec![], ..example::facts() };
    let summary = SummaryBuilder::new(example::START, vms).finish(facts, &example::names());
    let page = render_full(&summary, PLAIN);
    assert!(page.contains("Timeslices") && page.contains("Losses"), "{page}");
    assert!(!page.contains("\n\n\n"), "{page}");
    for guests_word in ["Requests  ", "Clock  ", "warning: no request"] {
        assert!(!page.contains(guests_word), "{guests_word}: {page}");
    }
}

#[test]
fn the_page_of_a_sampled_run() {
    let mut summary = example::sampled();
    let page = render_full(&summary, PLAIN);
    assert_golden("sampled.golden", &page);
    // Nobody shall take a share for a count, or a run without events for one with none.
    assert!(page.lines().next().unwrap().contains("(sampled)"));
    for absent in ["Where the time went", "Off-CPU", "Timeslices ", "every scheduler event"] {
        assert!(!page.contains(absent), "{absent}");
    }
    summary.facts.sampled = None;
    summary.facts.evidence.level = vslice_trace::evidence::EvidenceLevel::Totals;
    let page = render_full(&summary, PLAIN);
    assert!(page.lines().next().unwrap().contains("(totals only)"));
    assert!(!page.contains("Sampled reasons") && page.contains("Run delay"));
}

#[test]
fn colours_change_nothing_but_the_colours() {
    let summary = example::summary();
    let coloured = render_full(&summary, Style { colour: true, ..PLAIN });
    assert!(coloured.contains('\x1b'));
    let mut stripped = coloured;
    for escape in ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[1;31m"] {
        stripped = stripped.replace(escape, "");
    }
    assert_eq!(stripped, render_full(&summary, PLAIN));
}

fn is_bar(word: &str) -> bool {
    word.chars().all(|letter| letter == '#' || letter == '.')
}

/// A page in words, without its bars.
fn words(page: &str) -> HashSet<&str> {
    page.split_whitespace().filter(|word| !is_bar(word)).collect()
}

#[test]
fn no_line_of_a_whole_page_is_wider_than_the_terminal_and_no_word_is_lost() {
    let summaries = [
        example::summary(),
        example::with_exits(),
        example::unsound_clock(),
        example::sampled(),
        example::part(),
        with_every_string("a name of many words that is rather long"),
        with_every_string(&"n".repeat(1000)),
        with_every_string(&"\u{6771}".repeat(1000)),
    ];
    for (place, summary) in summaries.iter().enumerate() {
        let widest = render_full(summary, Style { width: 1000, ..PLAIN });
        for width in [60, 80, 100, 200] {
            let page = render_full(summary, Style { width, ..PLAIN });
            for line in page.lines() {
                assert!(columns(line) <= width, "{width}: {line:?}");
            }
            // Words without end are broken, which makes more of them.
            if place < 6 {
                let (all, there) = (words(&widest), words(&page));
                let lost: Vec<_> = all.difference(&there).collect();
                assert!(lost.is_empty(), "{width}: {lost:?} are not in\n{page}");
            }
        }
    }
}

#[test]
fn a_page_has_bars_where_it_is_wide_enough_for_them() {
    assert!(!render_full(&example::summary(), PLAIN).contains('#'));
    let wide = render_full(&example::summary(), Style { width: 132, ..PLAIN });
    assert!(wide.contains('#'), "{wide}");
}

#[test]
fn a_long_chain_shows_its_longest_spans_and_how_much_is_between() {
    use crate::summary::example::{preempted, request, running};
    let mut builder = SummaryBuilder::new(example::START, example::vms());
    // 20 times 10 us on and 1 ms off; of the 12 longest spans the last 12 waits are a little longer.
    let spans = (0..20).flat_map(|turn| {
        let length_ns = if turn < 8 { 1_000_000 } else { 1_100_000 };
        [running(10_000), preempted(length_ns, &[(201, length_ns)])]
    });
    let mut breakdown = request(0, example::START, spans.collect());
    breakdown.chain.cut_count = 24;
    builder.breakdown(example::VM1, &breakdown);
    let page = render_full(&builder.finish(example::facts(), &example::names()), PLAIN);
    let (_, chain) = page.split_once("  1. ").unwrap();
    let (chain, _) = chain.split_once("\n\n").unwrap();
    let lines: Vec<&str> = chain.lines().collect();
    assert_eq!(lines[1], "     +0.000 ms    8.090 ms  (17 shorter spans)");
    assert_eq!(lines[2], "     +8.090 ms    1.100 ms  preempted on pCPU1 by vm2 vCPU1 (1.100 ms)");
    assert_eq!(lines[3], "     +9.190 ms    0.010 ms  on pCPU1", "one alone takes no more room");
    assert_eq!(lines.last().unwrap().trim(), "and 24 more spans, which were not kept");
    assert_eq!(lines.iter().filter(|line| line.contains("preempted")).count(), 12);
}

#[test]
fn a_disk_without_a_record_is_said_and_has_no_table() {
    let mut summary = example::summary();
    let disk = &mut summary.io.disks[0];
    disk.reason = Some("/tmp/vm1.raw is in memory".to_owned());
    let page = render_full(&summary, PLAIN);
    assert!(page.contains("vm1: unknown, because /tmp/vm1.raw is in memory"), "{page}");
    assert!(!page.contains("Phases known"));
    let disk = &mut summary.io.disks[0];
    (disk.reason, disk.unmapped_reason) = (None, Some("it is in pieces".to_owned()));
    let page = render_full(&summary, PLAIN);
    assert!(page.contains(
        "vm1: known only for requests that were alone in flight, because it is in pieces"
    ));
    summary.io.disks.clear();
    assert!(!render_full(&summary, PLAIN).contains("I/O phase"));
}

/// Puts `name` wherever a string of a summary can come from a guest, a host task or a file.
fn with_every_string(name: &str) -> Summary {
    let mut summary = example::summary();
    summary.facts.warnings = vec![
        Warning::Notice { text: String::new() },
        Warning::HogDidNotCount { vm: String::new(), vcpu: vslice_core::units::VcpuId(1) },
    ];
    let mut summary = with_every_string_of(summary, name);
    summary.facts.status = RunStatus::Partial { reason: name.to_owned() };
    let unmapped = summary.io.disks[0].clone();
    summary.io.disks.push(IoDisk { reason: Some(name.to_owned()), ..unmapped.clone() });
    summary.io.disks.push(IoDisk { unmapped_reason: Some(name.to_owned()), ..unmapped });
    name.clone_into(&mut summary.facts.accelerator.reason);
    summary
}

/// The same of any summary.
pub(super) fn with_every_string_of(summary: Summary, name: &str) -> Summary {
    fn replace(value: &mut serde_json::Value, name: &str) {
        const ENUMS: [&str; 19] = [
            "against",
            "percentile",
            "remedy",
            "cause",
            "operation",
            "kind",
            "state",
            "reason",
            "phase",
            "part",
            "method",
            "attribution",
            "why_unknown",
            "io_unknown",
            "class",
            "evidence",
            "level",
            "what",
            "source",
        ];
        match value {
            serde_json::Value::String(text) => name.clone_into(text),
            serde_json::Value::Array(values) => {
                values.iter_mut().for_each(|value| replace(value, name));
            }
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    if !(ENUMS.contains(&key.as_str()) && value.is_string()) {
                        replace(value, name);
                    }
                }
            }
            _ => {}
        }
    }
    let mut value = serde_json::to_value(&summary).unwrap();
    replace(&mut value, name);
    serde_json::from_value(value).unwrap()
}

#[test]
fn no_name_reaches_the_terminal_as_a_command() {
    let page = render_full(&with_every_string("x\x1b]0;owned\x07\r\n\u{9b}2J\u{202e}y"), PLAIN);
    assert!(page.contains("x?]0;owned????2J?y"));
    let forbidden = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
    assert!(!page.contains(forbidden), "{page:?}");
    assert_eq!(
        page.lines().count(),
        render_full(&with_every_string("x?]0;owned????2J?y"), PLAIN).lines().count(),
        "a name adds no lines"
    );
}

#[test]
fn why_control_groups_are_unknown_is_said_where_some_are() {
    let mut summary = example::summary();
    summary.facts.control_groups.reason = "no BPF programs recorded this run".to_owned();
    let said = "control groups unknown: no BPF programs recorded this run";
    let page = |summary: &Summary| render_full(summary, PLAIN);
    assert!(!page(&summary).contains(said), "all are known");
    summary.vcpus[1].antagonist_groups[1].kind = GroupKind::Unknown;
    assert!(page(&summary).contains(said), "{}", page(&summary));
}

#[test]
fn a_long_name_does_not_flood_the_page() {
    let page = render_full(&with_every_string(&"n".repeat(100_000)), PLAIN);
    assert!(page.len() < 40_000, "{} bytes", page.len());
}

#[test]
fn phases_that_are_not_known_are_said_at_the_top_of_their_table_and_among_the_losses() {
    let mut summary = example::summary();
    (summary.facts.lost, summary.requests.dropped) = (Default::default(), 0);
    assert!(render_full(&summary, PLAIN).contains("Losses    none: every"));
    let io = &mut summary.io.classes.all;
    let (unphased, by) =
        (io.unphased, UnphasedBy { unfinished: io.unphased, ..UnphasedBy::default() });
    io.unphased_by = by;
    summary.facts.warnings.push(Warning::UnknownPhases {
        share: 0.57,
        p99_share: 0.6,
        requests: unphased,
        by,
        hidden: summary.io.hidden.clone(),
    });
    let page = render_full(&summary, PLAIN);
    let heading = page.find("I/O phase x vCPU state").unwrap();
    let said = page[heading..].find("for 57.0 % of the requests' time (60.0 % above p99)").unwrap();
    assert!(said < page[heading..].find("  total ").unwrap(), "{page}");
    let said = page.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("idle on pCPU0 (71 times)"), "{page}");
    let unfinished = vslice_spec::quantity::counted(unphased, "request");
    let losses = format!(
        "Losses no scheduler event and no request; the I/O completion of {unfinished} was not seen"
    );
    assert!(said.contains(&losses) && !said.contains("Losses none"), "{page}");
}

#[test]
fn control_groups_that_are_called_alike_have_their_own_threads() {
    let summary = example::summary();
    let rows =
        |vcpu: &Vcpu| Some((vcpu.antagonists.first()?.clone(), vcpu.antagonist_groups[0].clone()));
    let (thread, group) = summary.vcpus.iter().find_map(rows).unwrap();
    let (name, path) = ("build.service".to_owned(), Some("/system.slice/build.service".to_owned()));
    let thread = Antagonist { group: Some(name.clone()), group_path: path.clone(), ..thread };
    let group = AntagonistGroup { kind: GroupKind::ControlGroup, name, path, ..group };
    assert!(tables::is_member(&thread, &group));
    let path = Some("/user.slice/build.service".to_owned());
    assert!(!tables::is_member(&thread, &AntagonistGroup { path, ..group }));
}

#[test]
fn of_processes_that_were_not_all_told_apart_there_is_one_or_more() {
    let summary = example::summary();
    let rows = |vcpu: &Vcpu| vcpu.antagonists.first().cloned();
    let row = summary.vcpus.iter().find_map(rows).unwrap();
    let of = |count, is_exact| Members { count, is_exact };
    let said =
        |threads, processes| tables::members(&Antagonist { threads, processes, ..row.clone() });
    assert_eq!(said(of(35, true), of(1, false)), " (35 threads of one process or more)");
    assert_eq!(said(of(35, true), of(2, false)), " (35 threads of at least 2 processes)");
    assert_eq!(said(of(35, true), of(1, true)), " (35 threads)");
}
