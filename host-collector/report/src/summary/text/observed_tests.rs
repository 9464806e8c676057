use super::super::tests::{assert_golden, with_every_string_of};
use super::super::{LINES_MAX, Style, render, render_full};
use crate::summary::Summary;
use crate::summary::example::{START, VM1, names, running};
use crate::summary::observed::example;
use vslice_core::join::{Attribution, Breakdown, Phase};
use vslice_core::text::columns;
use vslice_core::units::HostNs;
use vslice_trace::observation::HiddenRecord;
use vslice_wire::{BlockOperation, CompletionVcpu, ObservedFlags, ObservedRequest};

const PLAIN: Style = Style::PLAIN;

#[test]
fn the_answer_of_what_was_observed() {
    assert_golden("front_observed.golden", &render(&example::summary(), PLAIN));
}

#[test]
fn the_whole_page_of_what_was_observed() {
    assert_golden("observed.golden", &render_full(&example::summary(), PLAIN));
}

#[test]
fn the_answer_where_only_slow_requests_were_sent() {
    assert_golden("front_slower_than.golden", &render(&example::slower_than(), PLAIN));
}

#[test]
fn the_page_of_a_reader_that_is_observed() {
    assert_golden("front_observed_reader.golden", &render(&example::with_reader(), PLAIN));
    assert_golden("observed_reader.golden", &render_full(&example::with_reader(), PLAIN));
}

/// Whatever the others took, nobody waited longer than for one that hangs; of those, what somebody waits for.
#[test]
fn what_hangs_comes_first() {
    assert_golden("front_stalled.golden", &render(&example::stalled(), PLAIN));
    let guests = example::stalled().observed.unwrap().guests;
    assert_eq!((guests[0].lost_events, guests[0].lost_intervals), (0, 0), "no event was lost");
    let full = render_full(&example::stalled(), PLAIN);
    let told = full.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains(
            "15 requests were still under way when observing ended, the oldest a sync write on vdb queued 3.20 s before: \
             8.19 kB at sector 2048 of postgres: walwriter (pid 415); 2 under way when observing began, and not \
             recorded; 7 passthrough commands, which are no block I/O"
        ),
        "{told}"
    );
    let mut young = example::stalled();
    let guests = young.observed.iter_mut().flat_map(|observed| &mut observed.guests);
    let rows = guests.filter_map(|guest| guest.end.as_mut()).flat_map(|end| &mut end.under_way);
    rows.for_each(|row| row.is_stalled = false);
    let page = render(&young, PLAIN);
    assert!(!page.contains("Stalled") && page.contains("Slowest"), "{page}");
}

/// Where a kernel hides completions, what the driver had most likely has ended; what it never got has not.
#[test]
fn what_may_have_ended_hangs_on_no_page() {
    let hidden = HiddenRecord { completed_count: 13, is_exact: true, ..HiddenRecord::default() };
    let page = render(&example::stalled_beside(hidden), PLAIN);
    assert_golden("front_hidden.golden", &page);
    let full = render_full(&example::stalled_beside(hidden), PLAIN);
    let told = full.split_whitespace().collect::<Vec<_>>().join(" ");
    for sentence in [
        "; its kernel hid 13 completions from perf, so that as many requests may be missing, and what follows may have \
         ended; 15 requests seemed to be still under way when observing ended, the oldest a sync write",
        "of the guests' block requests: 13 events that the guests' kernels hid from perf",
        "may have others' ends, as completions were hidden",
    ] {
        assert!(told.contains(sentence), "{sentence}: {told}");
    }
    let unknown = HiddenRecord { is_exact: false, ..HiddenRecord::default() };
    let full = render_full(&example::stalled_beside(unknown), PLAIN);
    let told = full.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("whether its kernel hid events from perf cannot be told"), "{told}");
}

fn observed() -> [Summary; 4] {
    [example::summary(), example::slower_than(), example::with_reader(), example::stalled()]
}

#[test]
fn no_name_of_a_guest_reaches_the_terminal_as_a_command() {
    let hostile = "x\x1b]0;owned\x07\r\n\u{9b}2J\u{202e}y";
    for summary in observed() {
        for page in [render, render_full]
            .map(|render| render(&with_every_string_of(summary.clone(), hostile), PLAIN))
        {
            let forbidden =
                |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
            assert!(!page.contains(forbidden), "{page:?}");
            assert!(
                page.contains("x?]0;owned????2J?y") && !page.contains("INCONSISTENT"),
                "{page}"
            );
        }
    }
}

#[test]
fn a_page_of_what_was_observed_is_a_page_however_long_the_names_are() {
    for name in ["vm", "a name of many words that is rather long", &"n".repeat(1000)] {
        for summary in observed() {
            let summary = with_every_string_of(summary, name);
            for width in [60, 80, 100, 200] {
                let style = Style { width, ..PLAIN };
                let page = render(&summary, style);
                let lines_max = (LINES_MAX * 100).div_ceil(width.min(100));
                assert!(page.lines().count() <= lines_max, "{width}: {page}");
                for line in page.lines().chain(render_full(&summary, style).lines()) {
                    assert!(columns(line) <= width, "{width}: {line:?}");
                }
            }
        }
    }
}

#[test]
fn who_ran_has_its_room_however_much_there_is_to_tell() {
    let mut summary = with_every_string_of(example::summary(), "db-production-1");
    let observed = summary.observed.as_mut().unwrap();
    let more = observed.operations[1].clone();
    observed.guests[0].count += 2 * more.count;
    observed.operations.extend([more.clone(), more]);
    let page = render(&summary, PLAIN);
    for heading in ["Observed", "Suffered", "Causes", "Who ran", "Slowest"] {
        assert!(page.contains(&format!("\n{heading}  ")), "no {heading}: {page}");
    }
    assert!(page.lines().count() <= LINES_MAX, "{page}");
}

#[test]
fn the_slowest_says_which_vcpus_had_to_act() {
    let of = ObservedRequest { vcpu_issued: 0, ..example::request() };
    let phases = vec![
        (Phase::GuestQueue, vec![running(5_000)]),
        (Phase::Queued, vec![example::idle_vcpu0(2_000)]),
        (Phase::Device, vec![example::idle_vcpu0(9_000)]),
        (Phase::Completed, vec![example::taken(8_000)]),
    ];
    let mut builder = example::builder(example::record());
    builder.breakdown(VM1, &example::split(of, HostNs(START.0 + 1_000_000), phases));
    let page = render(&builder.finish(example::facts(), &names()), PLAIN);
    let (_, chain) = page.split_once("\nSlowest  ").unwrap();
    let lines: Vec<&str> = chain.lines().map(str::trim).collect();
    assert_eq!(
        lines[2..12],
        [
            "+0.000 ms              queued on vCPU1",
            "+0.000 ms    0.005 ms  on pCPU1",
            "+0.005 ms              -> issued to the disk's driver on vCPU0, which is told of from here",
            "+0.005 ms    0.002 ms  halted, woken by vm1 main loop",
            "+0.007 ms              -> I/O to the disk",
            "+0.007 ms    0.009 ms  halted, woken by vm1 main loop",
            "+0.016 ms              <- I/O done; vCPU1 has to take it, and is told of from here",
            "+0.016 ms    0.008 ms  preempted on pCPU1 by vm2 vCPU1 (0.008 ms)",
            "",
            lines[11],
        ],
        "{page}"
    );
}

#[test]
fn what_is_unknown_of_an_operation_is_not_told_as_0_of_its_processes() {
    let flush = ObservedRequest {
        operation: BlockOperation::Flush,
        flags: ObservedFlags::SYNC,
        bytes: 0,
        task: 2,
        ..example::request()
    };
    let phases =
        vec![(Phase::GuestQueue, vec![running(5_000)]), (Phase::Unknown, vec![running(15_000)])];
    let mut builder = example::builder(example::record());
    builder.breakdown(VM1, &example::split(flush, HostNs(START.0 + 1_000_000), phases));
    let summary = builder.finish(example::facts(), &names());
    let page = render(&summary, PLAIN) + &render_full(&summary, PLAIN);
    let of_process: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("  postgres: walwriter"))
        .map(|line| line.split_whitespace().rev().take(4).collect())
        .collect();
    let told = vec!["unknown", "unknown", "%", "25.0"];
    assert_eq!(of_process, [told.clone(), told], "{page}");
    assert!(page.contains("all: I/O inactivity unknown\n"), "{page}");
    assert!(!page.contains(" 0 ns in 0 requests"), "{page}");
}

#[test]
fn where_the_vcpu_that_took_the_interrupt_is_unknown_inactivity_is_not_told_as_0() {
    let phases =
        vec![(Phase::Device, vec![running(5_000)]), (Phase::Completed, vec![running(15_000)])];
    let split = example::split_over(
        example::request(),
        HostNs(START.0 + 1_000_000),
        phases,
        CompletionVcpu::Unknown,
    );
    let mut builder = example::builder(example::record());
    builder.breakdown(VM1, &split);
    let summary = builder.finish(example::facts(), &names());
    let page = render(&summary, PLAIN) + &render_full(&summary, PLAIN);
    assert_eq!(page.matches(" 25.0 %     unknown\n").count(), 3, "{page}");
    assert!(page.contains("all: I/O inactivity unknown\n"), "{page}");
}

#[test]
fn a_total_says_of_how_many_of_its_requests_it_is() {
    let flush = ObservedRequest {
        operation: BlockOperation::Flush,
        bytes: 0,
        task: 2,
        ..example::request()
    };
    let mut builder = example::builder(example::record());
    for (at, attribution) in [(1, Attribution::Attributed), (2, Attribution::Lost)] {
        let start = HostNs(START.0 + at * 1_000_000);
        let split = example::split(flush, start, vec![(Phase::Queued, vec![running(20_000)])]);
        builder.breakdown(VM1, &Breakdown { attribution, ..split });
    }
    let page = render(&builder.finish(example::facts(), &names()), PLAIN);
    let (_, row) = page.split_once("\n  vdb flush ").unwrap();
    let row = row.lines().next().unwrap();
    assert!(row.contains(" 1 of 2 ") && !row.contains("all"), "{page}");
    assert!(page.contains("of vm1 vdb (1 of 2: 20.0 us)"), "{page}");
}
